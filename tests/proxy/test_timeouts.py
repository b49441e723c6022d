"""Deadlines behind one timer: they fire, move, nest, and mistake no other cancellation for theirs."""

from __future__ import annotations

import asyncio

import pytest

from proxy.timeouts import TICK_S, Timeout, Timeouts

FOREVER_S = 30


async def test_a_block_that_takes_too_long_is_ended() -> None:
    loop = asyncio.get_running_loop()
    begun_s = loop.time()
    with pytest.raises(TimeoutError), Timeouts().within(0.05):
        await asyncio.sleep(FOREVER_S)
    assert 0.05 <= loop.time() - begun_s < 0.05 + 10 * TICK_S
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


async def test_a_block_that_ends_in_time_leaves_nothing_behind() -> None:
    timeouts = Timeouts()
    with timeouts.within(0.01):
        pass
    await asyncio.sleep(3 * TICK_S)
    assert timeouts._pending == {}
    assert not timeouts._is_ticking


async def test_a_deadline_can_be_moved_both_ways() -> None:
    timeouts = Timeouts()
    with timeouts.within(0.01) as later:
        later.move(FOREVER_S)
        await asyncio.sleep(3 * TICK_S)
    sooner = timeouts.within()
    with pytest.raises(TimeoutError), sooner:
        await _moved(sooner)


async def _moved(sooner: Timeout) -> None:
    sooner.move(0.01)
    await asyncio.sleep(FOREVER_S)


async def test_of_nested_deadlines_only_the_one_that_passed_is_raised() -> None:
    timeouts = Timeouts()
    with timeouts.within(FOREVER_S):
        with pytest.raises(TimeoutError), timeouts.within(0.01):
            await asyncio.sleep(FOREVER_S)
        await asyncio.sleep(0)


async def test_a_cancellation_from_outside_stays_one() -> None:
    async def waits() -> None:
        with Timeouts().within(FOREVER_S):
            await asyncio.sleep(FOREVER_S)

    task = asyncio.create_task(waits())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_an_error_of_the_block_is_not_hidden() -> None:
    with pytest.raises(ValueError, match="its own"), Timeouts().within(FOREVER_S):
        raise ValueError("its own")


async def test_a_call_comes_once_and_can_be_called_off() -> None:
    timeouts = Timeouts()
    called = asyncio.Event()
    calls: list[str] = []
    timeouts.call(0.01, lambda: (calls.append("kept"), called.set()))
    timeouts.call(0.01, lambda: calls.append("dropped")).cancel()
    async with asyncio.timeout(FOREVER_S):
        await called.wait()
    await asyncio.sleep(2 * TICK_S)
    assert calls == ["kept"]
