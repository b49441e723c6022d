"""One deadline per connection that moves without touching the event loop's timers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from math import inf

# Timers of libuv count whole milliseconds and may fire a fraction early.
_REARM_S_MIN = 0.001


class Deadline:
    """Call `on_due` once when the instant set last has passed.

    A timer is armed only when the deadline moves to before the armed one; a deadline that moves
    on (every chunk of a stream) costs a comparison, and the timer re-arms itself when it fires.
    """

    __slots__ = ("_armed_at", "_at", "_loop", "_on_due", "_timer")

    def __init__(self, loop: asyncio.AbstractEventLoop, on_due: Callable[[], None]) -> None:
        self._loop = loop
        self._on_due = on_due
        self._at = inf
        self._armed_at = inf
        self._timer: asyncio.TimerHandle | None = None

    def set(self, delay_s: float) -> None:
        """Move the deadline to `delay_s` seconds from now."""
        self._at = self._loop.time() + delay_s
        if self._at < self._armed_at:
            self._arm(delay_s)

    def clear(self) -> None:
        """Have no deadline until the next `set`."""
        self._at = inf

    def close(self) -> None:
        """Drop the timer."""
        self._at = inf
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _arm(self, delay_s: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._armed_at = self._loop.time() + delay_s
        self._timer = self._loop.call_later(delay_s, self._fire)

    def _fire(self) -> None:
        self._timer = None
        self._armed_at = inf
        if self._at == inf:
            return
        rest_s = self._at - self._loop.time()
        if rest_s > 0:
            self._arm(max(rest_s, _REARM_S_MIN))
            return
        self._at = inf
        self._on_due()
