"""The caller's side of one request: its body, its answer, and whether it is still there."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence

from litestar.types import Receive, Scope, Send

from proxy.errors import Header, Problem, internal, invalid_request
from proxy.settings import ProxySettings

# Granian tells that a client left only to a pending `receive()`. Watching costs a task, so an
# answer in one piece is watched only when it takes longer than this.
WATCH_AFTER_S = 1.0


class ClientGone(Exception):
    """The client left, or took nothing for too long."""


class Client:
    """Reads one request and writes its answer."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, settings: ProxySettings) -> None:
        self._receive = receive
        self._send = send
        self._settings = settings
        self._watcher: asyncio.Task[None] | None = None
        self._is_gone = False
        self.on_gone: Callable[[], None] | None = None
        self.has_started = False
        self.headers, self.doubled = _headers(scope["headers"])

    @property
    def is_gone(self) -> bool:
        """Whether the client is known to have left."""
        return self._is_gone

    async def body(self) -> bytes:
        """Read the whole request body.

        Raises `Problem`: 415, 413, 408, or 400 when the client left before its end.
        """
        self._check_entity()
        loop = asyncio.get_running_loop()
        ends_at = loop.time() + self._settings.body_timeout_s
        try:
            async with asyncio.timeout(self._settings.body_idle_timeout_s) as idle:
                return await self._read(idle, loop, ends_at)
        except TimeoutError:
            raise Problem(
                408,
                "request_timeout",
                "The request body did not arrive in time.",
                should_retry=True,
            ) from None

    async def _read(
        self, idle: asyncio.Timeout, loop: asyncio.AbstractEventLoop, ends_at: float
    ) -> bytes:
        pieces: list[bytes] = []
        size = 0
        while True:
            message = await self._receive()
            if message["type"] != "http.request":
                self._is_gone = True
                raise invalid_request("malformed_json", "The request body ended early.")
            piece = message.get("body", b"")
            size += len(piece)
            if size > self._settings.body_bytes_max:
                raise self._too_large()
            pieces.append(piece)
            if not message.get("more_body", False):
                return pieces[0] if len(pieces) == 1 else b"".join(pieces)
            idle.reschedule(min(loop.time() + self._settings.body_idle_timeout_s, ends_at))

    def _check_entity(self) -> None:
        declared = self.headers.get(b"content-length", b"")
        if declared.isdigit() and int(declared) > self._settings.body_bytes_max:
            raise self._too_large()
        if self.headers.get(b"content-encoding", b"identity") != b"identity":
            raise Problem(
                415,
                "unsupported_content_encoding",
                "Compressed request bodies are not accepted; send the body as it is.",
            )
        media_type = self.headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
        if media_type != b"application/json":
            raise Problem(
                415, "unsupported_media_type", "Send the body as content-type: application/json."
            )

    def _too_large(self) -> Problem:
        return Problem(
            413,
            "request_too_large",
            f"The request body is larger than {self._settings.body_bytes_max} bytes.",
        )

    def watch(self) -> None:
        """Begin to notice when the client leaves."""
        if self._watcher is None:
            self._watcher = asyncio.get_running_loop().create_task(self._watch())

    async def _watch(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._left()

    def _left(self) -> None:
        self._is_gone = True
        if self.on_gone is not None:
            self.on_gone()

    async def start(self, status: int, headers: Sequence[Header]) -> None:
        """Send the head of the answer."""
        self.has_started = True
        await self._send({"type": "http.response.start", "status": status, "headers": headers})

    async def send(self, chunk: bytes) -> None:
        """Send a part of a streamed answer.

        Raises `ClientGone` when the client has left or takes nothing for too long.
        """
        if self._is_gone:
            raise ClientGone
        try:
            async with asyncio.timeout(self._settings.slow_reader_timeout_s):
                await self._send({"type": "http.response.body", "body": chunk, "more_body": True})
        except TimeoutError:
            self._left()
            raise ClientGone from None

    async def end(self, last: bytes = b"") -> None:
        """Send the last part of the answer; nothing happens when the client has left."""
        if not self._is_gone:
            await self._send({"type": "http.response.body", "body": last, "more_body": False})

    async def answer(self, status: int, headers: Sequence[Header], body: bytes) -> None:
        """Send a whole answer."""
        await self.start(status, headers)
        await self._send({"type": "http.response.body", "body": body, "more_body": False})

    async def fail(self, problem: Problem, request_id: bytes) -> None:
        """Tell the caller why there is no answer: as the answer, or as the stream's last event."""
        if self.is_gone:
            return
        if self.has_started:
            await self.end(problem.event())
            return
        body = problem.body()
        await self.answer(problem.status, problem.response_headers(request_id, body), body)

    async def fail_internally(self, request_id: bytes) -> None:
        """Tell the caller that the fault is ours."""
        await self.fail(internal(), request_id)

    def close(self) -> None:
        """Stop watching."""
        if self._watcher is not None:
            self._watcher.cancel()


def _headers(raw: Iterable[Header]) -> tuple[dict[bytes, bytes], frozenset[bytes]]:
    """Index the headers by name; name those that came more than once with different values."""
    headers: dict[bytes, bytes] = {}
    doubled: set[bytes] = set()
    for name, value in raw:
        if name in headers and headers[name] != value:
            doubled.add(name)
        headers[name] = value
    return headers, frozenset(doubled)
