"""Real sockets: a server whose every byte a test writes by hand, and pools that are closed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field

import pytest
import uvloop

from proxy.upstream import UpstreamPool, UpstreamSettings

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


@dataclass
class Connection:
    """The server's end of one connection."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def request(self) -> bytes:
        """Read one whole request; b"" once the client has closed."""
        try:
            head = await self.reader.readuntil(b"\r\n\r\n")
        except (asyncio.IncompleteReadError, ConnectionError):
            return b""
        _, found, rest = head.partition(b"content-length: ")
        return head + await self.reader.readexactly(int(rest.split(b"\r\n")[0]) if found else 0)

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def is_closed(self) -> bool:
        """Wait until the client has closed."""
        try:
            return await self.reader.read(1) == b""
        except ConnectionError:
            return True

    def reset(self) -> None:
        self.writer.transport.abort()


@dataclass
class Peer:
    """A server: connections in the order they came, for the test to talk on."""

    port: int = 0
    accepted: list[Connection] = field(default_factory=list)
    arrivals: asyncio.Queue[Connection] = field(default_factory=asyncio.Queue)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def next(self) -> Connection:
        return await self.arrivals.get()


Serve = Callable[..., Awaitable[Peer]]
MakePool = Callable[..., UpstreamPool]


def pytest_asyncio_loop_factories(config, item):
    """Run everything on both loops: they differ in when they report what happened to a socket."""
    return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    """Start a server; `handle`, if given, runs for each connection."""
    servers: list[asyncio.Server] = []
    writers: list[asyncio.StreamWriter] = []

    async def start(handle=None, ssl=None) -> Peer:
        peer = Peer()

        async def accept(reader, writer):
            connection = Connection(reader, writer)
            writers.append(writer)
            peer.accepted.append(connection)
            peer.arrivals.put_nowait(connection)
            if handle is not None:
                await handle(connection)

        server = await asyncio.start_server(accept, "127.0.0.1", 0, ssl=ssl)
        servers.append(server)
        peer.port = server.sockets[0].getsockname()[1]
        return peer

    yield start
    for server in servers:
        server.close()
    for writer in writers:
        writer.transport.abort()


@pytest.fixture
async def make_pool() -> AsyncIterator[MakePool]:
    """Make a pool that may contact loopback."""
    pools: list[UpstreamPool] = []

    def make(peer_or_url, *, ssl_context=None, resolve=None, **settings) -> UpstreamPool:
        settings.setdefault("private_allowed", ("127.0.0.0/8",))
        # What a test waits for must not come about by a time-out it does not speak of.
        for name in ("idle_timeout_s", "read_idle_timeout_s", "wait_timeout_s"):
            settings.setdefault(name, 3600.0)
        url = peer_or_url if isinstance(peer_or_url, str) else peer_or_url.url
        extra = {} if resolve is None else {"resolve": resolve}
        pool = UpstreamPool(
            url, settings=UpstreamSettings(**settings), ssl_context=ssl_context, **extra
        )
        pools.append(pool)
        return pool

    yield make
    for pool in pools:
        await pool.aclose()


@pytest.fixture
def send():
    """Send a small POST."""

    async def send(pool, body=b"{}", path=b"/v1", head_timeout_s=5.0, method=b"POST", **rest):
        return await pool.send(method, path, [], body, head_timeout_s=head_timeout_s, **rest)

    return send


@pytest.fixture
def ok() -> bytes:
    """A whole answer with the body `ok`."""
    return OK


@pytest.fixture
def answer_all():
    """A handler that answers every request of a connection with the same bytes."""

    def make(data=OK):
        async def handle(connection):
            while await connection.request():
                await connection.send(data)

        return handle

    return make
