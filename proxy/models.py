"""`/v1/models`: what the caller's key may ask for."""

from __future__ import annotations

import msgspec
from litestar.types import Receive, Scope, Send

from controlplane.clock import Clock
from controlplane.ids import IdSource
from core_rs import Engine
from proxy.authentication import Authenticator, check_state
from proxy.client import Client
from proxy.errors import Problem
from proxy.routing import Catalogue
from proxy.settings import ProxySettings
from proxy.timeouts import Timeouts


class Models:
    """Lists the deployments a key may use, in the form of OpenAI's API."""

    def __init__(
        self,
        *,
        engine: Engine,
        catalogue: Catalogue,
        authenticator: Authenticator,
        ids: IdSource,
        clock: Clock,
        settings: ProxySettings,
        timeouts: Timeouts,
    ) -> None:
        self._engine = engine
        self._catalogue = catalogue
        self._authenticator = authenticator
        self._ids = ids
        self._clock = clock
        self._settings = settings
        self._timeouts = timeouts
        self._created_s = clock.wall_ns() // 1_000_000_000

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        client = Client(scope, receive, send, self._settings, self._timeouts)
        request_id = b"req_" + self._ids.new_bytes().hex().encode()
        try:
            principal = self._authenticator.principal(client, self._clock.wall_ns())
            check_state(principal)
        except Problem as problem:
            await client.fail(problem, request_id)
            return
        body = self._list(principal.key)
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", b"%d" % len(body)),
            (b"x-request-id", request_id),
        ]
        await client.answer(200, headers, body)

    def _list(self, key: int) -> bytes:
        data = [
            {
                "id": each.model,
                "object": "model",
                "created": self._created_s,
                "owned_by": each.provider,
            }
            for each in self._catalogue.models()
            if self._engine.model_refused_by(key, each.model) is None
        ]
        return msgspec.json.encode({"object": "list", "data": data})
