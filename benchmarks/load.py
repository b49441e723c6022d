"""Requests over kept connections, cheap enough to share a core with a provider.

    python -m benchmarks.load '{"port": 8080, "path": "/json", …}'

Reads one `Load` as JSON from its argument and prints one `Result` as JSON.
"""

from __future__ import annotations

import asyncio
import itertools
import sys
import time
from collections import deque
from pathlib import Path
from typing import Any

import msgspec
import uvloop

TIMES_MAX = 1_000


class Load(msgspec.Struct, kw_only=True):
    """What to send: one request, over and over, on each of the connections.

    With `bodies` each of them in turn, in place of `body`; with a `secrets_file` each of its lines
    in turn as the bearer's token. With `per_s` so many a second at even
    distances, whatever the answers take: times are then from the moment each was due.
    """

    port: int
    path: str
    requests: int
    connections: int
    body: str
    bodies: list[str] = []
    headers: dict[str, str] = {}
    secrets_file: str = ""
    per_s: float = 0


class Result(msgspec.Struct, kw_only=True):
    """What came of it.

    Times in microseconds, from the request to the answer's first and last byte of content; each
    list is sorted, and holds every thousandth part where there are more.
    """

    requests: int
    wall_s: float
    first_us: list[float]
    last_us: list[float]


class Connection(asyncio.Protocol):
    """Sends the next prepared request as soon as its answer is whole and another is due."""

    def __init__(self, run: Run) -> None:
        self._run = run

    def connection_made(self, transport: Any) -> None:
        """Send the first request."""
        self._transport = transport
        self._next()

    def send(self, request: bytes, due_at: float) -> None:
        """Send a request that was due at a moment."""
        self._head = bytearray()
        self._head_end = -1
        self._size, self._length = 0, -1
        self._first_us = 0.0
        self._sent_at = due_at
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        """Take a part of the answer."""
        if self._head_end < 0:
            self._head += data
            self._head_end = self._head.find(b"\r\n\r\n")
            if self._head_end < 0:
                return
            self._begin(bytes(self._head[: self._head_end]))
            data = bytes(self._head[self._head_end + 4 :])
        if not data:
            return
        if not self._first_us:
            self._first_us = (time.perf_counter() - self._sent_at) * 1e6
        self._size += len(data)
        if self._size == self._length or (self._length < 0 and data.endswith(b"0\r\n\r\n")):
            self._run.finished(self._first_us, (time.perf_counter() - self._sent_at) * 1e6)
            self._next()

    def connection_lost(self, error: Exception | None) -> None:
        """Fail the run: the server must keep its connections."""
        self._run.fail(error or ConnectionError("the server closed the connection"))

    def _begin(self, head: bytes) -> None:
        if not head.startswith(b"HTTP/1.1 200"):
            self._run.fail(RuntimeError(head.decode(errors="replace")))
        lower = head.lower()
        at = lower.find(b"content-length:")
        self._length = -1 if at < 0 else int(lower[at + 15 :].split(b"\r\n", 1)[0])

    def _next(self) -> None:
        self._run.ready(self)


class Run:
    """The requests that are left, and what is known of those that are not."""

    def __init__(self, load: Load) -> None:
        self._requests = itertools.cycle(_requests_of(load))
        self._left = load.requests
        self._unfinished = load.requests
        self._is_paced = load.per_s > 0
        self._idle: deque[Connection] = deque()
        self._due: deque[float] = deque()
        self.first_us: list[float] = []
        self.last_us: list[float] = []
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def ready(self, connection: Connection) -> None:
        """Give a connection its next request, now or when one is due."""
        if self._is_paced and not self._due:
            self._idle.append(connection)
        elif self._is_paced:
            connection.send(next(self._requests), self._due.popleft())
        elif self._left > 0:
            self._left -= 1
            connection.send(next(self._requests), time.perf_counter())

    async def pace(self, per_s: float) -> None:
        """Make requests due at even distances, and send each if a connection is free."""
        begun = time.perf_counter()
        for number in range(self._left):
            due_at = begun + number / per_s
            await asyncio.sleep(max(0.0, due_at - time.perf_counter()))
            if self._idle:
                self._idle.popleft().send(next(self._requests), due_at)
            else:
                self._due.append(due_at)

    def finished(self, first_us: float, last_us: float) -> None:
        """Note an answer."""
        self.first_us.append(first_us)
        self.last_us.append(last_us)
        self._unfinished -= 1
        if self._unfinished == 0 and not self.done.done():
            self.done.set_result(None)

    def fail(self, error: Exception) -> None:
        """End the run with an error."""
        if not self.done.done():
            self.done.set_exception(error)


async def drive(load: Load) -> Result:
    """Send the load and wait for the last answer."""
    run = Run(load)
    begun = time.perf_counter()
    loop = asyncio.get_running_loop()
    for _ in range(load.connections):
        await loop.create_connection(lambda: Connection(run), "127.0.0.1", load.port)
    if load.per_s:
        await run.pace(load.per_s)
    await run.done
    return Result(
        requests=load.requests,
        wall_s=time.perf_counter() - begun,
        first_us=_thinned(run.first_us),
        last_us=_thinned(run.last_us),
    )


def _thinned(times_us: list[float]) -> list[float]:
    """Sort, and keep the percentiles to a tenth.

    A result must fit into a pipe at once: of half a megabyte a part was lost on a busy machine.
    """
    ordered, count = sorted(times_us), len(times_us)
    if count > TIMES_MAX:
        ordered = [ordered[number * count // TIMES_MAX] for number in range(TIMES_MAX)]
    return [round(each, 1) for each in ordered]


def _requests_of(load: Load) -> list[bytes]:
    head = "".join(f"{name}: {value}\r\n" for name, value in load.headers.items())
    bodies = [body.encode() for body in load.bodies or [load.body]]
    heads = [head]
    if load.secrets_file:
        secrets = Path(load.secrets_file).read_text().split()
        heads = [f"{head}authorization: Bearer {secret}\r\n" for secret in secrets]
    return [
        (
            f"POST {load.path} HTTP/1.1\r\nhost: 127.0.0.1\r\n{each}"
            f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
        ).encode()
        + body
        for each in heads
        for body in bodies
    ]


if __name__ == "__main__":
    result = uvloop.run(drive(msgspec.json.decode(sys.argv[1], type=Load)))
    print(msgspec.json.encode(result).decode())
