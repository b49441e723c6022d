"""A server that sends snapshots as fast as they are taken, by our fan-out and by Strawberry's.

`/ours` and `/stock` are WebSockets over one schema, whose one subscription sends `ticks` snapshots
of the shape of `liveSpend`. A round begins when all its listeners have had their pong, and a
shared snapshot waits until the one before has been handed to the server for every listener: of
snapshots that come faster the older are dropped, and would be counted as sent by nobody.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qs
from uuid import UUID

import strawberry
from litestar import asgi
from strawberry.schema.config import StrawberryConfig

from benchmarks import stock
from comptroller.app import create_app_from_environment
from controlplane.api.documents import PreparedDocument
from controlplane.api.fanout import FanOut
from controlplane.api.fields import subscription
from controlplane.api.request import Info
from controlplane.api.scalars import SCALARS, BigInt, Money
from controlplane.api.schema import Schema
from controlplane.api.scopes import scope_of
from controlplane.api.socket import SocketHandler
from controlplane.breakers.graphql import breaker_of
from controlplane.limits.graphql import budget_of
from controlplane.limits.models import Limit, LimitKind, Mode, Period, ScopeKind
from controlplane.limits.queries import LimitPair
from controlplane.limits.subjects import Scope
from controlplane.live.graphql import LiveScope, LiveSpend

OURS = "/ours"
# Before a round each listener gets an acknowledgement and a pong.
GREETINGS = 2
PROTOCOL = "graphql-transport-ws"
QUERY = """
subscription ($name: String!, $listeners: Int!, $ticks: Int!, $shared: Boolean!) {
  liveSpend(name: $name, listeners: $listeners, ticks: $ticks, shared: $shared) {
    at seq
    scopes {
      scope { kind id } lastMinute lastHour requestsPerMinute refusedPerMinute
      budgets { id period limit version }
      breaker { perMinute perHour }
    }
  }
}
"""


def messages_of(token: str, variables: dict[str, object]) -> list[str]:
    """Write what each listener sends."""
    payload = {"query": QUERY, "variables": variables}
    return [
        json.dumps({"type": "connection_init", "payload": {"authorization": f"Bearer {token}"}}),
        json.dumps({"type": "subscribe", "id": "1", "payload": payload}),
        json.dumps({"type": "ping"}),
    ]


class Round:
    """Counts what has been sent in one round, and lets those go on who wait for a number."""

    def __init__(self, listeners: int) -> None:
        self.greetings = listeners * GREETINGS
        self.sent = 0
        self._awaited: dict[int, asyncio.Event] = {}

    def count(self) -> None:
        """Note that one message has been handed to the server."""
        self.sent += 1
        event = self._awaited.get(self.sent)
        if event is not None:
            event.set()

    async def until(self, number: int) -> None:
        """Wait until so many messages have been sent."""
        if self.sent < number:
            await self._awaited.setdefault(number, asyncio.Event()).wait()


ROUNDS: dict[str, Round] = {}


@strawberry.type(description="Nothing.")
class Query:
    """A schema must have one."""

    nothing: bool = strawberry.field(default=True, description="Nothing.")


@strawberry.type(description="Snapshots.")
class Subscription:
    """Snapshots as fast as they are taken."""

    @subscription("Snapshots.")
    async def live_spend(
        self,
        info: Info,  # noqa: ARG002 - resolvers of the real one take it
        name: str,
        listeners: int,
        ticks: int,
        shared: bool,  # noqa: FBT001
    ) -> AsyncGenerator[LiveSpend, None]:
        """Send snapshots; `shared` says that each goes to all listeners."""
        counted = ROUNDS[name]
        await counted.until(counted.greetings)
        for tick in range(1, ticks + 1):
            yield _snapshot(tick)
            if shared:
                await counted.until(counted.greetings + tick * listeners)


def create_app() -> Any:
    """Make the application of the benchmark within that of the product."""
    app = create_app_from_environment()
    control = app.state.comptroller.control
    schema = Schema(
        query=Query,
        subscription=Subscription,
        extensions=[PreparedDocument],
        config=StrawberryConfig(scalar_map=SCALARS),
    )
    parts = control.api._sockets._parts  # noqa: SLF001
    sockets = SocketHandler(
        replace(
            parts,
            desk=replace(parts.desk, schema=schema._schema),  # noqa: SLF001
            fan_out=FanOut(schema, control.backend),
        )
    )
    app.register(asgi(OURS, copy_scope=False)(sockets.__call__))
    app.register(stock.stock_controller(schema, control.backend, parts.authenticator, stock.PATH))
    return counting(app)


def counting(app: Any) -> Any:
    """Count what an application sends on its sockets, by the round that their address names."""

    async def counted(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "websocket":
            await app(scope, receive, send)
            return
        asked = parse_qs(scope["query_string"].decode())
        counter = ROUNDS.setdefault(asked["name"][0], Round(int(asked["listeners"][0])))

        async def send_counted(message: Any) -> None:
            await send(message)
            if message["type"] == "websocket.send":
                counter.count()

        await app(scope, receive, send_counted)

    return counted


_PLACE = UUID(int=7)
_AT = datetime(2026, 3, 14, 9, 26, 53, tzinfo=UTC)
_BUDGET = Limit(
    id=UUID(int=8),
    organization_id=_PLACE,
    kind=LimitKind.BUDGET,
    scope_kind=ScopeKind.ORGANIZATION,
    scope_id=_PLACE,
    window_period=Period.MONTH,
    window_time_zone="UTC",
    cap=10**13,
    mode=Mode.HARD,
    version=1,
)


def _snapshot(tick: int) -> LiveSpend:
    scope = Scope(ScopeKind.ORGANIZATION, _PLACE)
    return LiveSpend(
        at=_AT,
        seq=BigInt(tick),
        scopes=[
            LiveScope(
                scope=scope_of(_PLACE, scope),
                last_minute=Money(tick),
                last_hour=Money(1_234_567_890_123),
                requests_per_minute=BigInt(tick),
                refused_per_minute=BigInt(0),
                budgets=[budget_of(_BUDGET)],
                breaker=breaker_of(_PLACE, LimitPair(scope, None, None, 1)),
            )
        ],
    )
