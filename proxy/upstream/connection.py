"""One TCP or TLS connection to an upstream: at most one exchange at a time.

A connection is *fresh* (not connected yet), *idle*, in an *exchange*, or *closed*. Everything that
can go wrong ends in `close`, which is idempotent and tells the owner once; only an answer that is
whole on the wire, with nothing after it and the request fully written, leads back to idle.
"""

from __future__ import annotations

import asyncio
import select
from collections.abc import Callable
from typing import cast

from proxy.upstream.deadline import Deadline
from proxy.upstream.errors import UpstreamBadResponse, UpstreamError, UpstreamReset, UpstreamTimeout
from proxy.upstream.response import ResponseReader
from proxy.upstream.settings import UpstreamSettings

# Below this a copy is cheaper than a second buffer in the transport.
_JOINED_BYTES_MAX = 64 * 1024
# A connection idle for longer is asked for a pending close before use: one poll(2), about 2 µs.
# Under load, when it would add up, connections are not idle that long.
_TRUSTED_IDLE_S = 1.0


class Connection(asyncio.Protocol):
    """The event loop's side of a connection, and the exchange it carries."""

    __slots__ = (
        "_connected", "_deadline", "_idle_since", "_is_paused", "_loop", "_on_closed", "_on_idle",
        "_reader", "_settings", "_transport", "_waiter", "exchanges", "is_closed", "lost",
    )  # fmt: skip

    def __init__(
        self,
        settings: UpstreamSettings,
        *,
        on_idle: Callable[[Connection], None],
        on_closed: Callable[[Connection], None],
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._settings = settings
        self._on_idle = on_idle
        self._on_closed = on_closed
        self._deadline = Deadline(self._loop, self._overdue)
        self._transport: asyncio.Transport | None = None
        self._reader: ResponseReader | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._is_paused = False
        self._idle_since = 0.0
        self.exchanges = 0
        self.is_closed = False
        self.lost: asyncio.Future[None] = self._loop.create_future()

    @property
    def is_fresh(self) -> bool:
        """Whether it still has to be connected."""
        return self._transport is None and not self.is_closed

    def is_usable(self) -> bool:
        """Return whether a request may be written: connected, and no close seen or pending."""
        if self.is_closed or self._transport is None or self._transport.is_closing():
            return False
        if self._loop.time() - self._idle_since < _TRUSTED_IDLE_S:
            return True
        return not _is_readable(self._transport)

    async def exchange(
        self,
        head: bytes,
        body: bytes,
        *,
        bodiless: bool,
        head_timeout_s: float,
        on_sent: Callable[[], None] | None,
    ) -> ResponseReader:
        """Send one request and return its reader once the final head has arrived.

        `on_sent` runs immediately before the first byte is handed to the transport; if it raises,
        nothing is sent and the connection stays good. Cancelling closes the connection.
        """
        if on_sent is not None:
            self._announce(on_sent)
        reader = ResponseReader(bodiless=bodiless, header_bytes_max=self._settings.header_bytes_max)
        self._reader = reader
        self.exchanges += 1
        self._deadline.set(head_timeout_s)
        self._write(head, body)
        try:
            while not reader.has_head():
                await self.changed()
        except BaseException:
            self.abandon(reader)
            raise
        return reader

    def changed(self) -> asyncio.Future[None]:
        """Return a future that is done when the exchange has got further, or failed."""
        if self._waiter is not None and not self._waiter.done():
            raise RuntimeError("an answer is read by one task at a time")
        self._waiter = self._loop.create_future()
        return self._waiter

    def resume(self, reader: ResponseReader) -> None:
        """Read on after the buffer was emptied."""
        if self._is_paused and self._reader is reader and self._transport is not None:
            self._is_paused = False
            self._deadline.set(self._settings.read_idle_timeout_s)
            self._transport.resume_reading()

    def abandon(self, reader: ResponseReader) -> None:
        """Close at once if the reader's answer is still on the wire."""
        if self._reader is reader:
            self.fail(_reset("closed by us", self, reader))

    def fail(self, error: UpstreamError) -> None:
        """End the exchange, if there is one, with an error, and close."""
        reader = self._reader
        if reader is not None and reader.error is None:
            reader.error = error
        self.close()

    def close(self) -> None:
        """Close without ceremony; nothing is left to flush."""
        if self.is_closed:
            return
        self.is_closed = True
        self._reader = None
        self._deadline.close()
        if self._transport is None:
            self.lost.set_result(None)
        else:
            self._transport.abort()
        self._wake()
        self._on_closed(self)

    # Called by the event loop.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the transport; one that comes after `close` is aborted."""
        # uvloop's transports do not inherit from asyncio's; the interface is the same.
        self._transport = cast("asyncio.Transport", transport)
        self._idle_since = self._loop.time()
        if self.is_closed:
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        """Feed the answer; bytes nobody asked for close the connection."""
        reader = self._reader
        if reader is None:
            self.close()
            return
        received_bytes = reader.received_bytes
        had_head = reader.head_complete
        try:
            reader.feed(data)
        except UpstreamBadResponse as error:
            self.fail(error)
            return
        if reader.complete:
            self._finish(reader)
        elif reader.buffered_bytes >= self._settings.buffer_bytes_max:
            self._pause(reader)
        elif reader.received_bytes != received_bytes or reader.head_complete != had_head:
            self._deadline.set(self._settings.read_idle_timeout_s)
        if reader.head_complete:
            self._wake()

    def eof_received(self) -> None:
        """Treat a half-closed connection as closed: no request may follow on it."""
        self._ended(None)

    def connection_lost(self, exc: Exception | None) -> None:
        """End the exchange with what is known."""
        if not self.lost.done():
            self.lost.set_result(None)
        self._ended(exc)

    def _ended(self, cause: Exception | None) -> None:
        reader = self._reader
        if reader is not None and not (cause is None and reader.end_of_input()):
            self.fail(_reset(str(cause or "closed by the peer"), self, reader))
        self.close()

    def _announce(self, on_sent: Callable[[], None]) -> None:
        try:
            on_sent()
        except BaseException:
            self._rest(None)
            raise

    def _write(self, head: bytes, body: bytes) -> None:
        transport = self._transport
        if transport is None:
            raise RuntimeError("not connected")
        if len(body) <= _JOINED_BYTES_MAX:
            transport.write(head + body)
        else:
            transport.writelines((head, body))

    def _finish(self, reader: ResponseReader) -> None:
        transport = self._transport
        self._reader = None
        if (
            transport is None
            or reader.excess
            or not reader.keep_alive
            or transport.is_closing()
            # The peer answered before it had the whole request: the rest must not be taken for
            # the next one.
            or transport.get_write_buffer_size()
        ):
            self.close()
            return
        if self._is_paused:
            self._is_paused = False
            transport.resume_reading()
        self._rest(reader.keep_alive_s)

    def _rest(self, offered_s: int | None) -> None:
        idle_s = self._settings.idle_timeout_s
        if offered_s is not None:
            # A second less than offered, so that we close first.
            idle_s = min(idle_s, max(offered_s - 1.0, 0.0))
        self._idle_since = self._loop.time()
        self._deadline.set(idle_s)
        self._on_idle(self)

    def _pause(self, reader: ResponseReader) -> None:
        if not self._is_paused and self._transport is not None:
            self._is_paused = True
            reader.was_held_up = True
            self._deadline.clear()
            self._transport.pause_reading()

    def _overdue(self) -> None:
        reader = self._reader
        if reader is None:
            self.close()
        elif reader.head_complete:
            self.fail(UpstreamTimeout("the body stalled", sent=True))
        else:
            self.fail(UpstreamTimeout("no response head in time", sent=True))

    def _wake(self) -> None:
        waiter = self._waiter
        if waiter is not None:
            self._waiter = None
            if not waiter.done():
                waiter.set_result(None)


def _reset(detail: str, connection: Connection, reader: ResponseReader) -> UpstreamReset:
    return UpstreamReset(
        detail, sent=True, reused=connection.exchanges > 1, answered=reader.is_started
    )


def _is_readable(transport: asyncio.Transport) -> bool:
    """Return whether a close, or bytes nobody asked for, wait in the socket."""
    raw = transport.get_extra_info("socket")
    poll = select.poll()
    poll.register(raw.fileno(), select.POLLIN)
    return bool(poll.poll(0))
