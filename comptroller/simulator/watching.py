"""Waiting for a state of the simulator, so that no test needs to sleep."""

import asyncio
from collections.abc import Callable


class Watch:
    """Wake waiters when what they wait for has come true. Owned by one event loop."""

    def __init__(self) -> None:
        self._waiters: list[tuple[Callable[[], bool], asyncio.Future[None]]] = []

    async def until(self, is_true: Callable[[], bool]) -> None:
        """Wait until a condition holds; it is looked at whenever `changed` is called."""
        if is_true():
            return
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.append((is_true, waiter))
        await waiter

    def changed(self) -> None:
        """Look at every condition again."""
        if self._waiters:
            self._waiters = [waiter for waiter in self._waiters if not _woken(*waiter)]


def _woken(is_true: Callable[[], bool], waiter: asyncio.Future[None]) -> bool:
    if waiter.done():
        return True
    if is_true():
        waiter.set_result(None)
    return waiter.done()
