"""The caller's side of one request: its body, its answer, and whether it is still there."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress

from litestar.types import Receive, Scope, Send

from proxy.errors import Header, Problem, internal, invalid_request
from proxy.settings import ProxySettings
from proxy.timeouts import Timeout, Timeouts

# Granian tells that a client left only to a pending `receive()`. Watching costs a task, so an
# answer in one piece is watched only when it takes longer than this.
WATCH_AFTER_S = 1.0
# The server bounds its read buffer only, and lets heads of somewhat more through.
HEAD_BYTES_MAX = 64 * 1024
# More digits than any size we take has, once leading zeros are gone.
SIZE_DIGITS_MAX = 18
# Headers that decide what a request is, beside our own: two different values have two readings.
_DECISIVE = frozenset(
    {b"content-encoding", b"content-length", b"content-type", b"transfer-encoding"}
)
_OUR_PREFIX = b"x-comptroller-"
# For answers that are given while the body is not read to its end.
_CLOSE = ((b"connection", b"close"),)


class ClientGone(Exception):
    """The client left, or took nothing for too long."""


class Client:
    """Reads one request and writes its answer."""

    def __init__(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        settings: ProxySettings,
        timeouts: Timeouts,
    ) -> None:
        self._receive = receive
        self._send = send
        self._settings = settings
        self.timeouts = timeouts
        self._watcher: asyncio.Task[None] | None = None
        self._is_gone = False
        self.on_gone: Callable[[], None] | None = None
        self.has_started = False
        self._raw_headers: Sequence[Header] = tuple(scope["headers"])
        self.headers = dict(self._raw_headers)
        """Each header's last value, by its name in lower case."""
        self.repeated = _repeated(self._raw_headers, self.headers)

    @property
    def is_gone(self) -> bool:
        """Whether the client is known to have left."""
        return self._is_gone

    def values(self, name: bytes) -> list[bytes]:
        """List every value of a header, in the order in which they came."""
        if name not in self.repeated:
            value = self.headers.get(name)
            return [] if value is None else [value]
        return [value for given, value in self._raw_headers if given == name]

    def check_head(self) -> None:
        """Refuse a head that could be read in two ways, before anything in it is believed.

        Raises `Problem`: 400, or 413 for a body whose declared size is too large.
        """
        if sum([len(name) + len(value) for name, value in self._raw_headers]) > HEAD_BYTES_MAX:
            raise invalid_request(
                "invalid_header", f"The headers are larger than {HEAD_BYTES_MAX} bytes together."
            )
        for name in self.repeated:
            self._check_repeated(name)
        if b"transfer-encoding" in self.headers:
            self._check_codings()
        declared = self.headers.get(b"content-length", b"").lstrip(b"0")
        if len(declared) > SIZE_DIGITS_MAX or int(declared or b"0") > self._settings.body_bytes_max:
            raise self._too_large()

    def _check_repeated(self, name: bytes) -> None:
        is_decisive = name in _DECISIVE or name.startswith(_OUR_PREFIX)
        if is_decisive and len(set(self.values(name))) > 1:
            raise invalid_request(
                "invalid_header", f"{name.decode()} is given twice, with different values."
            )

    def _check_codings(self) -> None:
        codings = [coding.lower() for coding in self.values(b"transfer-encoding")]
        if codings != [b"chunked"] or b"content-length" in self.headers:
            raise invalid_request(
                "invalid_header", "The only transfer-encoding is chunked, without content-length."
            )

    async def body(self) -> bytes:
        """Read the whole request body.

        Raises `Problem`: 415, 413, 408, or 400 when it ended early.
        """
        self._check_entity()
        settings = self._settings
        ends_at_s = asyncio.get_running_loop().time() + settings.body_timeout_s
        first_s = min(settings.body_idle_timeout_s, settings.body_timeout_s)
        try:
            with self.timeouts.within(first_s) as idle:
                return await self._read(idle, ends_at_s)
        except TimeoutError:
            raise Problem(
                408,
                "request_timeout",
                "The request body did not arrive in time.",
                should_retry=True,
                headers=_CLOSE,
            ) from None

    async def _read(self, idle: Timeout, ends_at_s: float) -> bytes:
        pieces: list[bytes] = []
        size = 0
        while True:
            message = await self._receive()
            if message["type"] != "http.request":
                # Broken chunks and a half-closed connection look the same from here, and their
                # sender may still read: it is told, not left to the server's own status 500.
                raise Problem(400, "malformed_json", "The body ended early.", headers=_CLOSE)
            piece = message.get("body", b"")
            size += len(piece)
            if size > self._settings.body_bytes_max:
                raise self._too_large()
            pieces.append(piece)
            if not message.get("more_body", False):
                return pieces[0] if len(pieces) == 1 else b"".join(pieces)
            idle.move(self._settings.body_idle_timeout_s)
            idle.at_s = min(idle.at_s, ends_at_s)

    def _check_entity(self) -> None:
        if self.headers.get(b"content-encoding", b"identity").lower() != b"identity":
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
            headers=_CLOSE,
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
        await self._put(chunk, more_body=True)

    async def end(self, last: bytes = b"") -> None:
        """Send the last part of the answer; nothing happens when the client has left."""
        with suppress(ClientGone):
            await self._put(last, more_body=False)

    async def _put(self, chunk: bytes, *, more_body: bool) -> None:
        if self._is_gone:
            raise ClientGone
        try:
            with self.timeouts.within(self._settings.slow_reader_timeout_s):
                await self._send(
                    {"type": "http.response.body", "body": chunk, "more_body": more_body}
                )
        except TimeoutError:
            self._left()
            raise ClientGone from None

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


def _repeated(raw: Sequence[Header], headers: dict[bytes, bytes]) -> frozenset[bytes]:
    """Name the headers that came more than once."""
    if len(raw) == len(headers):
        return frozenset()
    times = Counter(name for name, _ in raw)
    return frozenset(name for name, count in times.items() if count > 1)
