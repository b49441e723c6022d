"""An upstream's answer as its caller reads it."""

from __future__ import annotations

import warnings
from types import TracebackType
from typing import Self

from proxy.upstream.connection import Connection
from proxy.upstream.errors import UpstreamTooLarge
from proxy.upstream.response import ResponseReader


class UpstreamAnswer:
    """One answer; use it with `async with`, or close it.

    The connection goes back to the pool when the last byte of the answer has arrived, read by the
    caller or not, and is closed if the answer is closed before that.
    """

    __slots__ = ("_connection", "_is_closed", "_reader", "headers", "status")

    def __init__(self, connection: Connection, reader: ResponseReader) -> None:
        self._connection = connection
        self._reader = reader
        self._is_closed = False
        self.status = reader.status
        self.headers = reader.headers

    @property
    def has_arrived(self) -> bool:
        """Whether `next_chunk` would return, or raise, without waiting."""
        reader = self._reader
        return bool(reader.buffered_bytes or reader.complete or reader.error)

    @property
    def was_held_up(self) -> bool:
        """Whether the upstream ever had to wait because its answer was read too slowly."""
        return self._reader.was_held_up

    async def arrival(self) -> bool:
        """Wait until `next_chunk` need not wait; true then."""
        while not self.has_arrived:
            await self._connection.changed()
        return True

    async def next_chunk(self) -> bytes:
        """Return all body bytes that have arrived, waiting for at least one; b"" at the end.

        Raises UpstreamReset, UpstreamTimeout or UpstreamBadResponse, after what arrived before
        has been handed over. May be cancelled and called again without losing a byte.
        """
        reader = self._reader
        while not reader.buffered_bytes:
            if reader.is_over():
                return b""
            await self._connection.changed()
        chunk = reader.take()
        self._connection.resume(reader)
        return chunk

    async def read(self, bytes_max: int) -> bytes:
        """Return the whole body.

        Raises UpstreamTooLarge, closing the connection, if it is larger than `bytes_max`; and
        what `next_chunk` raises.
        """
        reader = self._reader
        if not reader.complete and (reader.content_length or 0) > bytes_max:
            self._refuse(bytes_max)
        pieces: list[bytes] = []
        size = 0
        while chunk := await self.next_chunk():
            size += len(chunk)
            if size > bytes_max:
                self._refuse(bytes_max)
            pieces.append(chunk)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def abort(self) -> None:
        """Close the connection at once, unless the whole answer has arrived already.

        Whoever waits in `next_chunk` gets UpstreamReset.
        """
        self._connection.abandon(self._reader)

    async def aclose(self) -> None:
        """End the use of this answer; calling it again does nothing."""
        if not self._is_closed:
            self._is_closed = True
            self.abort()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    def __del__(self) -> None:
        if not self._is_closed and not self._reader.complete and self._reader.error is None:
            warnings.warn("an upstream answer was not closed", ResourceWarning, stacklevel=1)
            self.abort()

    def _refuse(self, bytes_max: int) -> None:
        self.abort()
        raise UpstreamTooLarge(f"the body is larger than {bytes_max} bytes", sent=True)
