"""The API's one door: requests, event streams and sockets come in at the same address."""

from __future__ import annotations

from litestar.types import Receive, Scope, Send

from controlplane.api.authentication import Authenticator
from controlplane.api.cors import CrossOrigin
from controlplane.api.fanout import FanOut
from controlplane.api.handler import GraphQLHandler
from controlplane.api.operation import Desk
from controlplane.api.points import PointBuckets
from controlplane.api.request import Backend
from controlplane.api.schema import make_schema
from controlplane.api.sessions import Sessions
from controlplane.api.socket import SocketHandler, SocketParts
from controlplane.api.sse import EventStreams
from controlplane.api.trusted import load_trusted_documents


class Api:
    """The API of one process.

    Raises `SettingsError` for trusted documents that cannot be used.
    """

    def __init__(self, backend: Backend) -> None:
        installation, settings = backend.installation, backend.installation.settings
        schema = make_schema()
        core = schema._schema  # noqa: SLF001
        trusted = load_trusted_documents(
            settings.trusted_documents_file, core, only=settings.trusted_documents_only
        )
        buckets = PointBuckets(
            installation.clock,
            points_max=settings.api_points_max,
            restore_per_s=settings.api_points_per_s,
        )
        self.desk = desk = Desk(core, trusted, buckets)
        authenticator = Authenticator(backend.database, installation)
        cross_origin = CrossOrigin(settings.cors_origins)
        self.fan_out = FanOut(schema, backend)
        self.sessions = Sessions(backend.database, installation)
        streams = EventStreams(self.fan_out, self.sessions)
        self._handler = GraphQLHandler(schema, backend, desk, authenticator, streams, cross_origin)
        self._sockets = SocketHandler(
            SocketParts(
                desk, self.fan_out, self.sessions, authenticator, cross_origin, installation.ids
            )
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request or serve a socket."""
        if scope["type"] == "websocket":  # type: ignore[comparison-overlap]
            await self._sockets(scope, receive, send)
        else:
            await self._handler(scope, receive, send)

    async def stop(self) -> None:
        """Close sockets, end subscriptions."""
        self._sockets.stop()
        await self.fan_out.stop()
        await self.sessions.stop()
