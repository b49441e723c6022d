"""One request and its answer, with the control over the connection that faults need."""

import asyncio
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Protocol

import msgspec

GZIP_WINDOW = 31


class Request(msgspec.Struct, frozen=True):
    """A request as it came; header names are lower-case."""

    method: str
    path: str
    query: str
    headers: tuple[tuple[str, str], ...]
    body: bytes
    keep_alive: bool = True

    def header(self, name: str) -> str | None:
        """Give the first value of a header."""
        return next((value for found, value in self.headers if found == name), None)


@dataclass(slots=True)
class Outcome:
    """What became of a request; outlives it in the history."""

    status: int | None = None
    fate: str = "open"
    is_left: bool = False


class Wire(Protocol):
    """What an exchange needs of its connection."""

    def write(self, data: bytes) -> None:
        """Hand bytes to the socket; dropped when the client has left."""

    async def drained(self) -> None:
        """Wait until the client has taken enough for more to be written, or has left."""

    async def flushed(self) -> None:
        """Wait until the socket has taken everything, or the client has left."""

    def reset(self) -> None:
        """End the connection with a TCP reset."""

    def close(self) -> None:
        """End the connection after what was written."""

    def next_request(self) -> None:
        """Go on with the next request of the connection."""


class Exchange:
    """Write one answer; know when the client has left and at which instant."""

    def __init__(self, wire: Wire, request: Request) -> None:
        self.request = request
        self.outcome = Outcome()
        self.left_at_s: float | None = None
        self._wire = wire
        self._loop = asyncio.get_running_loop()
        self._pause: asyncio.Future[None] | None = None
        self._is_chunked = False
        self._is_over = False
        self._deflate: zlib._Compress | None = None

    @property
    def is_left(self) -> bool:
        """Whether the client has closed the connection."""
        return self.left_at_s is not None

    def now_s(self) -> float:
        """Read the monotonic clock of the loop."""
        return self._loop.time()

    def client_left(self) -> None:
        """Note that the client has closed the connection."""
        if self.left_at_s is None:
            self.left_at_s = self.now_s()
            self.outcome.is_left = True
        self._wake()

    async def pause(self, delay_s: float | None) -> None:
        """Wait for so long, None for ever, but no longer than the client is there."""
        if self.is_left:
            return
        self._pause = self._loop.create_future()
        timer = None if delay_s is None else self._loop.call_later(max(0.0, delay_s), self._wake)
        try:
            await self._pause
        finally:
            if timer is not None:
                timer.cancel()
            self._pause = None

    def start(
        self,
        status: int,
        headers: Mapping[str, str],
        *,
        body_bytes: int | None = None,
        gzip: bool = False,
    ) -> None:
        """Write the head; without `body_bytes` the body is chunked."""
        self.outcome.status = status
        fields = dict(headers)
        if gzip:
            self._deflate = zlib.compressobj(wbits=GZIP_WINDOW)
            fields["content-encoding"] = "gzip"
        self._is_chunked = gzip or body_bytes is None
        framing = ("transfer-encoding", "chunked")
        if not self._is_chunked:
            framing = ("content-length", str(body_bytes))
        lines = [f"{name}: {value}\r\n" for name, value in (*fields.items(), framing)]
        self._wire.write(f"HTTP/1.1 {status} {_phrase(status)}\r\n{''.join(lines)}\r\n".encode())

    def write(self, data: bytes) -> None:
        """Write a part of the body; dropped when the client has left."""
        if self._deflate is not None:
            data = self._deflate.compress(data) + self._deflate.flush(zlib.Z_SYNC_FLUSH)
        self._write_framed(data)

    async def drained(self) -> None:
        """Wait until the client reads fast enough."""
        await self._wire.drained()

    def finish(self) -> None:
        """End the body; the connection goes on with its next request."""
        if self._is_over:
            return
        self._is_over = True
        if self._deflate is not None:
            self._write_framed(self._deflate.flush())
        if self._is_chunked:
            self._wire.write(b"0\r\n\r\n")
        self._wire.next_request()

    async def answer(
        self,
        status: int,
        body: bytes,
        headers: Mapping[str, str] | None = None,
        *,
        gzip: bool = False,
    ) -> None:
        """Write a whole answer, JSON where no header says otherwise."""
        fields = {"content-type": "application/json", **(headers or {})}
        self.start(status, fields, body_bytes=len(body), gzip=gzip)
        self.write(body)
        self.finish()

    async def reset(self) -> None:
        """Reset the connection once everything written so far is out."""
        self._is_over = True
        await self._wire.flushed()
        self._wire.reset()

    def close(self) -> None:
        """Close the connection in the middle of the body."""
        self._is_over = True
        self._wire.close()

    def _write_framed(self, data: bytes) -> None:
        if not data:
            return
        if self._is_chunked:
            data = b"%x\r\n%b\r\n" % (len(data), data)
        self._wire.write(data)

    def _wake(self) -> None:
        if self._pause is not None and not self._pause.done():
            self._pause.set_result(None)


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Unknown"
