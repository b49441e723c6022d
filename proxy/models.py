"""`/v1/models`: what the caller's key may ask for."""

from __future__ import annotations

import msgspec
from litestar.types import Receive, Scope, Send

from controlplane.clock import Clock
from core_rs import Engine
from proxy.authentication import Authenticator, check_state
from proxy.client import Client
from proxy.routing import Catalogue, Deployment
from proxy.serving import Serving, answer_json

# The one route that models are asked on so far.
ENDPOINT = "/v1/chat/completions"


class Models:
    """Lists the deployments a key may use, in the form of OpenAI's API."""

    def __init__(
        self,
        *,
        engine: Engine,
        catalogue: Catalogue,
        authenticator: Authenticator,
        serving: Serving,
        clock: Clock,
    ) -> None:
        self._engine = engine
        self._catalogue = catalogue
        self._authenticator = authenticator
        self._serving = serving
        self._clock = clock
        self._created_s = clock.wall_ns() // 1_000_000_000

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        await self._serving.serve(scope, receive, send, self._answer)

    async def _answer(self, client: Client, request_id: bytes) -> None:
        principal = self._authenticator.principal(client, self._clock.wall_ns())
        check_state(principal)
        await answer_json(client, request_id, self._list(principal.key))

    def _list(self, key: int) -> bytes:
        data = [
            {
                "id": each.model,
                "object": "model",
                "created": self._created_s,
                "owned_by": each.provider,
            }
            for each in self._catalogue.models()
            if self._is_allowed(key, each)
        ]
        return msgspec.json.encode({"object": "list", "data": data})

    def _is_allowed(self, key: int, deployment: Deployment) -> bool:
        refused = self._engine.refused_by_rule(
            key,
            model=deployment.model,
            provider=deployment.provider,
            endpoint=ENDPOINT,
            request_class="interactive",
            tier=deployment.tier,
        )
        return refused is None
