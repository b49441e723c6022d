"""A simulated provider and clients for it; all over real HTTP."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import suppress
from typing import Any

import httpx
import openai
import pytest
import pytest_asyncio

from comptroller.simulator import RunningSimulator, SimulatorSettings, simulator


@pytest_asyncio.fixture
async def running() -> AsyncIterator[RunningSimulator]:
    async with simulator(SimulatorSettings(abort_tail_tokens=3)) as started:
        yield started


# Without TLS, certificates need not be loaded: that costs more than all else in a test.
@pytest_asyncio.fixture
async def http(running: RunningSimulator) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=running.address, timeout=60, verify=False) as client:
        yield client


@pytest_asyncio.fixture
async def sdk(running: RunningSimulator) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(
        base_url=running.base_url,
        api_key="any",
        max_retries=0,
        http_client=openai.DefaultAsyncHttpxClient(verify=False),
    ) as client:
        yield client


Leave = Callable[[Coroutine[Any, Any, object]], Coroutine[Any, Any, None]]


@pytest.fixture
def leave(running: RunningSimulator) -> Leave:
    """Send a request, hang up once it is being answered, wait until nothing is answered."""

    async def sent_and_left(request: Coroutine[Any, Any, object]) -> None:
        sent = asyncio.create_task(request)
        await running.generating(1)
        sent.cancel()
        with suppress(asyncio.CancelledError):
            await sent
        await running.idle()

    return sent_and_left
