"""The exchanges under way, so that a shutdown can wait for them and then end them."""

from __future__ import annotations

import asyncio


class RunningExchanges:
    """Tasks that talk to providers; owned by one event loop."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[object]] = set()
        self._none_left = asyncio.Event()
        self.is_closing = False

    def __len__(self) -> int:
        return len(self._tasks)

    def enter(self) -> asyncio.Task[object] | None:
        """Note that the current task begins an exchange.

        Gives the task, for `leave`; None when no exchange may begin any more.
        """
        if self.is_closing:
            return None
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        return task

    def leave(self, task: asyncio.Task[object]) -> None:
        """Note that a task's exchange has ended."""
        self._tasks.discard(task)
        if self.is_closing and not self._tasks:
            self._none_left.set()

    async def end(self, *, grace_s: float, last_words_s: float) -> None:
        """Wait until every exchange has ended; cancel those that take longer than `grace_s`.

        From the call on `is_closing` is true, by which a cancelled task knows why. One that does
        not end within `last_words_s` of its cancellation is left behind.
        """
        self.is_closing = True
        if await self._none_within(grace_s):
            return
        for task in tuple(self._tasks):
            task.cancel()
        await self._none_within(last_words_s)

    async def _none_within(self, timeout_s: float) -> bool:
        if not self._tasks:
            return True
        try:
            async with asyncio.timeout(timeout_s):
                await self._none_left.wait()
        except TimeoutError:
            return False
        return True
