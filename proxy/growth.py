"""Keeping the hold of a stream ahead of what it generates, and cutting it where there is no room.

The hold is extended before what it is for is passed on. While a stream waits for room it is not
read on; the step that is held ahead of it covers what its provider generates meanwhile.
"""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Final, Self

from core_rs import Refusal
from proxy.provider_faults import outgrown
from proxy.settlement import Reservation

# A provider that thinks in silence sends nothing that the hold could follow.
HIDDEN_INTERVAL_S: Final = 0.1


class Growth:
    """Follows one stream with its hold; it is told of room and of its end by the enforcer."""

    def __init__(self, reservation: Reservation, task: asyncio.Task[object]) -> None:
        self._reservation = reservation
        self._task = task
        self._room: asyncio.Future[None] | None = None
        self._hidden: asyncio.TimerHandle | None = None
        self._may_cancel = False
        self._is_cancelled = False
        # What is more than this has to be counted exactly; a token has at least one byte.
        self._counted_at = 0
        self.refusal: Refusal | None = None

    def begin(self) -> None:
        """Begin to follow a provider that generates what it does not show."""
        if not self._reservation.deployment.all_tokens_visible:
            self._follow_hidden()

    def stop(self) -> None:
        """Follow no more."""
        if self._hidden is not None:
            self._hidden.cancel()

    def __enter__(self) -> Self:
        """Let the block be ended by a cut, at whatever it waits for; it ends without an error."""
        self._may_cancel = True
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool:
        self._may_cancel = False
        if isinstance(error, StreamCut):
            return True
        was_cancelled, self._is_cancelled = self._is_cancelled, False
        if not was_cancelled or not isinstance(error, asyncio.CancelledError):
            return False
        # Whoever else cancelled the task meanwhile, as a shutdown does, is heard.
        return self._task.uncancel() == 0

    async def follow(self) -> None:
        """Hold enough for all that has been generated, or wait until there is room.

        Raises `Problem` when the stream has reached its bound.
        """
        reservation = self._reservation
        if self.refusal is not None:
            raise StreamCut
        if reservation.generated_most() - self._counted_at <= reservation.allowed_tokens:
            return
        generated = reservation.generated()
        # Between two exact counts no more tokens can come than bytes.
        self._counted_at = reservation.generated_most() - generated
        if generated > reservation.output_tokens_max:
            raise outgrown()
        if generated > reservation.allowed_tokens:
            await self._extend(generated)

    async def _extend(self, generated: int) -> None:
        self._room = asyncio.get_running_loop().create_future()
        try:
            if not self._reservation.extend(generated):
                await self._room
            if self.refusal is not None:
                raise StreamCut
        finally:
            self._room = None

    def granted(self, output_tokens: int) -> None:
        """Go on: there is room."""
        self._reservation.granted(output_tokens)
        if self._room is not None and not self._room.done():
            self._room.set_result(None)

    def cut(self, refusal: Refusal) -> None:
        """End the stream at once, whatever it waits for."""
        if self.refusal is not None:
            return
        self.refusal = refusal
        self._reservation.cut_by(refusal)
        if self._room is not None and not self._room.done():
            self._room.set_result(None)
        elif self._may_cancel and asyncio.current_task() is not self._task:
            self._is_cancelled = True
            self._task.cancel()

    def _follow_hidden(self) -> None:
        loop = asyncio.get_running_loop()
        self._hidden = loop.call_later(HIDDEN_INTERVAL_S, self._follow_hidden)
        reservation = self._reservation
        generated = min(reservation.generated(), reservation.output_tokens_max)
        if generated > reservation.allowed_tokens and self._room is None and not self.refusal:
            reservation.extend(generated)


class StreamCut(Exception):
    """Says within the reading of a stream that it has to end."""
