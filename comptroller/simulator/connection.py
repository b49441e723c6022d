"""HTTP/1.1 on asyncio and httptools, without a server framework in between.

Granian was tried on paper and left out: an ASGI or RSGI application cannot reset a TCP
connection, cannot write a broken frame of HTTP, and learns of an abort only through a pending
`receive()`. Misbehaving exactly on demand is what this server is for, so it owns the socket; and
as the peer of benchmarks it costs a fraction of what it helps to measure.
"""

import asyncio
import socket
import struct
from collections import deque
from collections.abc import Callable, Coroutine
from typing import cast

import httptools

from comptroller.simulator.exchange import Exchange, Request

HEAD_BYTES_MAX = 64 << 10
PIPELINED_MAX = 64
# Seconds the kernel lingers on close: zero makes it send RST and forget what is unsent.
LINGER_RESET = struct.pack("ii", 1, 0)

Handler = Callable[[Exchange], Coroutine[None, None, None]]
Shortcut = Callable[[Request], bytes | None]


class Connections:
    """Every open connection and running answer of one server, so that it can end them."""

    def __init__(self, handler: Handler, shortcut: Shortcut, *, body_bytes_max: int) -> None:
        self.handler = handler
        self.shortcut = shortcut
        self.body_bytes_max = body_bytes_max
        self.open: set[Connection] = set()
        self.tasks: set[asyncio.Task[None]] = set()

    def connection(self) -> "Connection":
        """Make the protocol of a new connection."""
        return Connection(self)

    def run(self, exchange: Exchange) -> None:
        """Answer one request in a task of its own, which outlives the client."""
        task = asyncio.get_running_loop().create_task(self.handler(exchange))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def aclose(self) -> None:
        """Cancel every answer and end every connection."""
        for task in tuple(self.tasks):
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        for connection in tuple(self.open):
            connection.reset()


class Connection(asyncio.Protocol):
    """Parse requests, answer them one after the other, notice when the client leaves.

    Reading is never paused, else a client that leaves would not be noticed; what may wait
    unanswered is bounded instead.
    """

    def __init__(self, connections: Connections) -> None:
        self._connections = connections
        self._parser = httptools.HttpRequestParser(self)
        self._waiting: deque[Request] = deque()
        self._exchange: Exchange | None = None
        self._is_lost = False
        self._writable: asyncio.Future[None] | None = None
        self._transport: asyncio.Transport
        self.on_message_begin()

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the socket over."""
        # Not asserted: the transports of uvloop are none of asyncio's classes.
        self._transport = cast("asyncio.Transport", transport)
        self._connections.open.add(self)

    def data_received(self, data: bytes) -> None:
        """Parse what came; nonsense is answered 400 and ends the connection."""
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._refuse(400)
        except httptools.HttpParserError:
            self._refuse(400)
        self._check_head(len(data))

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        """Tell whoever is answering that nobody reads any more."""
        self._is_lost = True
        self._connections.open.discard(self)
        self._waiting.clear()
        self.resume_writing()
        if self._exchange is not None:
            self._exchange.client_left()

    def pause_writing(self) -> None:
        """Make writers wait: the client reads more slowly than we write."""
        self._writable = asyncio.get_running_loop().create_future()

    def resume_writing(self) -> None:
        """Let writers go on."""
        waiter, self._writable = self._writable, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    # What httptools calls.

    def on_message_begin(self) -> None:
        """Start a request."""
        self._url = b""
        self._headers: list[tuple[str, str]] = []
        self._body: list[bytes] = []
        self._is_head = True
        self._head_bytes = 0
        self._body_bytes = 0

    def on_url(self, url: bytes) -> None:
        """Collect the request's target."""
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """Collect a header."""
        self._headers.append((name.decode("latin-1").lower(), value.decode("latin-1")))

    def on_headers_complete(self) -> None:
        """Let a client go on that asks before it sends its body."""
        self._is_head = False
        if any(name == "expect" for name, _ in self._headers):
            self.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, body: bytes) -> None:
        """Collect the body, up to the largest allowed."""
        self._body_bytes += len(body)
        if self._body_bytes > self._connections.body_bytes_max:
            self._refuse(413)
            return
        self._body.append(body)

    def on_message_complete(self) -> None:
        """Answer the request, after those before it."""
        if self._is_lost or self._transport.is_closing():
            return
        path, _, query = self._url.decode("latin-1").partition("?")
        request = Request(
            method=self._parser.get_method().decode("latin-1"),
            path=path,
            query=query,
            headers=tuple(self._headers),
            body=b"".join(self._body),
            keep_alive=self._parser.should_keep_alive(),
        )
        self._waiting.append(request)
        if len(self._waiting) > PIPELINED_MAX:
            self._refuse(429)
        elif self._exchange is None:
            self.next_request()

    # What an exchange asks for.

    def write(self, data: bytes) -> None:
        """Hand bytes to the socket; dropped when the client has left."""
        if not self._is_lost:
            self._transport.write(data)

    async def drained(self) -> None:
        """Wait until the client has taken enough for more to be written, or has left."""
        while self._writable is not None:
            await self._writable

    async def flushed(self) -> None:
        """Wait until the socket has taken everything, or the client has left."""
        self._transport.set_write_buffer_limits(0)
        await self.drained()

    def reset(self) -> None:
        """End the connection with a TCP reset."""
        if self._is_lost:
            return
        open_socket = self._transport.get_extra_info("socket")
        open_socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_RESET)
        self._transport.abort()

    def close(self) -> None:
        """End the connection after what was written."""
        if not self._is_lost:
            self._transport.close()

    def next_request(self) -> None:
        """Go on with the next request, or close if the last one was the last."""
        while True:
            if self._exchange is not None and not self._exchange.request.keep_alive:
                self.close()
                return
            self._exchange = None
            if not self._waiting or self._is_lost:
                return
            request = self._waiting.popleft()
            ready = self._connections.shortcut(request)
            if ready is None:
                self._exchange = Exchange(self, request)
                self._connections.run(self._exchange)
                return
            self.write(ready)

    def _check_head(self, data_bytes: int) -> None:
        self._head_bytes += data_bytes if self._is_head else 0
        if self._head_bytes > HEAD_BYTES_MAX:
            self._refuse(431)

    def _refuse(self, status: int) -> None:
        """Answer at wire level, without a body, and close."""
        if self._transport.is_closing():
            return
        self.write(
            b"HTTP/1.1 %d Refused\r\ncontent-length: 0\r\nconnection: close\r\n\r\n" % status
        )
        self.close()
