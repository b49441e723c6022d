"""Deadlines of all requests of a process behind one timer of its event loop.

A timer of its own for each wait costs several microseconds, three times a request; an entry in a
dict costs a tenth of one. The price is that a deadline may be met late, by at most `TICK_S`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from math import inf
from types import TracebackType
from typing import Final, Self

TICK_S: Final = 0.1


class Timeouts:
    """The deadlines that are pending; made once, used on one event loop."""

    __slots__ = ("_is_ticking", "_pending")

    def __init__(self) -> None:
        self._pending: dict[Call | Timeout, None] = {}
        self._is_ticking = False

    def within(self, delay_s: float = inf) -> Timeout:
        """Make a block that raises TimeoutError when it takes longer than `delay_s` seconds."""
        return Timeout(self, delay_s)

    def call(self, delay_s: float, act: Callable[[], None]) -> Call:
        """Call something `delay_s` seconds from now, unless it is cancelled before."""
        call = Call(self, asyncio.get_running_loop().time() + delay_s, act)
        self.add(call)
        return call

    def add(self, entry: Call | Timeout) -> None:
        """Watch the deadline of an entry."""
        self._pending[entry] = None
        if not self._is_ticking:
            self._is_ticking = True
            asyncio.get_running_loop().call_later(TICK_S, self._tick)

    def remove(self, entry: Call | Timeout) -> None:
        """Watch it no more; nothing happens if that is so already."""
        self._pending.pop(entry, None)

    def _tick(self) -> None:
        loop = asyncio.get_running_loop()
        now_s = loop.time()
        for entry in [entry for entry in self._pending if entry.at_s <= now_s]:
            # One that fired may have removed another.
            if entry in self._pending:
                del self._pending[entry]
                entry.fire()
        self._is_ticking = bool(self._pending)
        if self._is_ticking:
            loop.call_later(TICK_S, self._tick)


class Call:
    """Something to be called later."""

    __slots__ = ("_act", "_timeouts", "at_s")

    def __init__(self, timeouts: Timeouts, at_s: float, act: Callable[[], None]) -> None:
        self._timeouts = timeouts
        self._act = act
        self.at_s = at_s

    def fire(self) -> None:
        """Call it."""
        self._act()

    def cancel(self) -> None:
        """Call it no more."""
        self._timeouts.remove(self)


class Timeout:
    """A block of a task with a deadline that may be moved; used once, with `with`.

    As `asyncio.timeout`, it cancels its task and turns that cancellation, and no other, into
    TimeoutError.
    """

    __slots__ = ("_cancelling", "_has_fired", "_task", "_timeouts", "at_s")

    def __init__(self, timeouts: Timeouts, delay_s: float) -> None:
        self._timeouts = timeouts
        self.at_s = asyncio.get_running_loop().time() + delay_s
        self._has_fired = False

    def move(self, delay_s: float) -> None:
        """Move the deadline to `delay_s` seconds from now."""
        self.at_s = asyncio.get_running_loop().time() + delay_s

    def fire(self) -> None:
        """Cancel the task."""
        self._has_fired = True
        self._task.cancel()

    def __enter__(self) -> Self:
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a timeout is of a task")
        self._task = task
        self._cancelling = task.cancelling()
        self._timeouts.add(self)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._timeouts.remove(self)
        if not self._has_fired:
            return
        if self._task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            raise TimeoutError from error
