"""What the control plane exports: its routes, and how to start and stop it."""

from __future__ import annotations

import os
from collections.abc import Sequence

from litestar.handlers import ASGIRouteHandler, asgi
from litestar.types import Receive, Scope, Send

from controlplane.api.entry import Api
from controlplane.api.explorer import explorer_routes
from controlplane.api.request import Backend
from controlplane.clock import Clock
from controlplane.context import Installation
from controlplane.db import Database
from controlplane.events import Events
from controlplane.ids import IdSource, RandomBytes
from controlplane.keys.secret import load_or_create_pepper
from controlplane.limits.state import LimitStates, no_limit_states
from controlplane.live.feed import LiveFeed
from controlplane.migrations import upgrade
from controlplane.settings import ControlSettings

GRAPHQL_PATH = "/graphql"


class ControlPlane:
    """The control plane of one process; `routes` are mounted by whoever composes the product.

    `database` is opened and closed by the caller; `start` migrates it. `live` is fed by whoever
    writes the records.
    """

    def __init__(
        self,
        settings: ControlSettings,
        clock: Clock,
        ids: IdSource,
        database: Database,
        events: Events,
        live: LiveFeed,
        *,
        limit_states: LimitStates = no_limit_states,
        random_bytes: RandomBytes = os.urandom,
    ) -> None:
        pepper = load_or_create_pepper(settings.data_dir)
        self.installation = Installation(settings, clock, ids, pepper, random_bytes)
        self.database = database
        self.events = events
        self.backend = Backend(database, self.installation, events, limit_states, live)
        self.api = Api(self.backend)

    @property
    def routes(self) -> Sequence[ASGIRouteHandler]:
        """The handlers to mount."""
        api = self.api

        @asgi(GRAPHQL_PATH, copy_scope=False)
        async def graphql(scope: Scope, receive: Receive, send: Send) -> None:
            await api(scope, receive, send)

        return (graphql, *explorer_routes())

    async def start(self) -> None:
        """Bring the schema of the database up to date."""
        await upgrade(self.database.url)

    async def stop(self) -> None:
        """Close open sockets and streams."""
        await self.api.stop()
