"""Clients of subscriptions against the running installation, and its insides to look into."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from controlplane.api.nodes import NodeKind, global_id
from controlplane.api.trusted import TrustedDocuments
from tests.installation import _NUMBERS
from tests.stack import Stack

TIMEOUT_S = 20
PROTOCOL = "graphql-transport-ws"
LIVE = """subscription Live($place: ID!, $scopes: [ScopeInput!], $ms: Int! = 250) {
  liveSpend(organizationId: $place, scopes: $scopes, intervalMs: $ms) { seq scopes {
    scope { kind id } lastMinute lastHour requestsPerMinute refusedPerMinute } } }"""


def place_of(tenant: Stack) -> str:
    return global_id(NodeKind.ORGANIZATION, tenant.organization_id, tenant.organization_id)


class Socket:
    """Speaks graphql-transport-ws, and leaves out what the protocol forbids only if told to."""

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection

    def send(self, message: Any) -> None:
        """Send a message; texts and bytes as they are."""
        raw = message if isinstance(message, str | bytes) else json.dumps(message)
        self.connection.send(raw)

    def next(self) -> Any:
        """Wait for a message; gives the code of the close when there is none."""
        try:
            message = json.loads(self.connection.recv(TIMEOUT_S))
        except ConnectionClosed as closed:
            return None if closed.rcvd is None else closed.rcvd.code
        return message

    def close_code(self) -> int | None:
        """Read to the end; gives the code of the close."""
        while not isinstance(message := self.next(), int | None):
            pass
        return message

    def close_reason(self) -> str:
        self.close_code()
        return self.connection.close_reason or ""

    def init(self, token: str) -> None:
        self.send({"type": "connection_init", "payload": {"authorization": f"Bearer {token}"}})
        assert self.next() == {"type": "connection_ack"}

    def subscribe(self, name: str, query: str = LIVE, **variables: Any) -> None:
        payload = {"query": query, "variables": variables}
        self.send({"id": name, "type": "subscribe", "payload": payload})


Dial = Callable[..., Any]


@pytest.fixture
def dial(stack: Stack) -> Dial:
    """Open a socket."""

    @contextmanager
    def opened(*, protocols: Any = (PROTOCOL,), origin: str | None = None) -> Iterator[Socket]:
        address = stack.address.replace("http://", "ws://") + "/graphql"
        with connect(
            address, subprotocols=protocols or None, origin=origin, open_timeout=TIMEOUT_S
        ) as connection:
            yield Socket(connection)

    return opened


Counts = tuple[int, int, int, int]


class Insides:
    """What the process keeps of open connections."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self._api = stack.comptroller.control.api

    def counts(self) -> Counts:
        """Count running subscriptions, watched organizations, sessions and sockets."""

        async def read() -> Counts:
            return self._counts_now()

        return self._stack.run(read)

    def wait_for(self, expected: Counts) -> None:
        """Let the loop run until it is so: a client that has gone is noticed in a few turns."""

        async def turn() -> Counts:
            await asyncio.sleep(0)
            return self._counts_now()

        deadline = time.monotonic() + TIMEOUT_S
        while self._stack.run(turn) != expected and time.monotonic() < deadline:
            pass
        assert self.counts() == expected

    def _counts_now(self) -> Counts:
        return (
            self._api.fan_out.sources_count,
            len(self._stack.comptroller.live._watched),
            len(self._api.sessions._open),
            len(self._api._sockets._connections),
        )


@pytest.fixture
def insides(stack: Stack) -> Iterator[Insides]:
    """Look into the process; nothing may be left when a test is over."""
    found = Insides(stack)
    found.wait_for((0, 0, 0, 0))
    yield found
    found.wait_for((0, 0, 0, 0))


@pytest.fixture
def other(installation: Stack) -> Stack:
    """Another organization in the same installation."""
    return installation.tenant(f"org-{next(_NUMBERS)}")


@pytest.fixture
def trusted_only(stack: Stack) -> Iterator[Callable[[dict[str, str]], None]]:
    """Answer no documents but these until the test is over."""
    desk = stack.comptroller.control.api._handler.desk
    before = desk.documents

    def answer(by_id: dict[str, str]) -> None:
        object.__setattr__(desk, "documents", TrustedDocuments(by_id, only=True))

    yield answer
    object.__setattr__(desk, "documents", before)
