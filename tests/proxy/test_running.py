"""Waiting for exchanges at shutdown, and ending them."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest

from proxy.running import RunningExchanges


class Exchange:
    """A task in an exchange that ends when told; `was_cancelled` says how it ended."""

    def __init__(self, running: RunningExchanges, *, is_stubborn: bool = False) -> None:
        self._running = running
        self._is_stubborn = is_stubborn
        self.may_end = asyncio.Event()
        self.was_cancelled = False
        self.task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        task = self._running.enter()
        assert task is not None
        try:
            await self.may_end.wait()
        except asyncio.CancelledError:
            self.was_cancelled = True
            if self._is_stubborn:
                await self.may_end.wait()
        finally:
            self._running.leave(task)


@pytest.fixture
def running() -> RunningExchanges:
    return RunningExchanges()


async def test_with_none_under_way_the_end_is_at_once(running):
    await running.end(grace_s=3600, last_words_s=3600)
    assert running.is_closing
    assert running.enter() is None


async def test_those_that_end_by_themselves_are_waited_for(running, until):
    exchange = Exchange(running)
    await until(lambda: len(running) == 1)
    ending = asyncio.create_task(running.end(grace_s=3600, last_words_s=3600))
    await until(lambda: running.is_closing)
    assert running.enter() is None
    assert not ending.done()
    exchange.may_end.set()
    await ending
    assert (len(running), exchange.was_cancelled) == (0, False)


async def test_those_that_take_too_long_are_cancelled_and_waited_for(running, until):
    exchanges = [Exchange(running), Exchange(running, is_stubborn=True)]
    await until(lambda: len(running) == 2)
    ending = asyncio.create_task(running.end(grace_s=0, last_words_s=3600))
    await until(lambda: len(running) == 1)
    assert [exchange.was_cancelled for exchange in exchanges] == [True, True]
    assert not ending.done()
    exchanges[1].may_end.set()
    await ending
    assert len(running) == 0


async def test_one_that_does_not_end_at_all_is_left_behind(running, until):
    exchange = Exchange(running, is_stubborn=True)
    await until(lambda: len(running) == 1)
    await running.end(grace_s=0, last_words_s=0)
    assert len(running) == 1
    exchange.may_end.set()
    with suppress(asyncio.CancelledError):
        await exchange.task


async def test_ending_again_waits_for_nothing(running, until):
    exchange = Exchange(running)
    await until(lambda: len(running) == 1)
    await running.end(grace_s=0, last_words_s=3600)
    await running.end(grace_s=3600, last_words_s=3600)
    assert exchange.was_cancelled
