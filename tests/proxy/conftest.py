"""Fixtures of tests that share an installation, and of those that turn the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from itertools import count

import pytest

from comptroller.simulator.running import RunningSimulator
from tests.proxy.limited import limited_installation, limited_provider
from tests.stack import Stack

_NUMBERS = count(1)


@pytest.fixture(scope="session")
def shared_seller() -> Iterator[RunningSimulator]:
    """The simulated provider behind the installation whose streams are followed."""
    with limited_provider() as running:
        yield running


@pytest.fixture(scope="session")
def followed(
    tmp_path_factory: pytest.TempPathFactory, shared_seller: RunningSimulator
) -> Iterator[Stack]:
    """The installation whose streams are followed."""
    folder = tmp_path_factory.mktemp("followed")
    with limited_installation(folder, shared_seller, organization=False) as running:
        yield running


@pytest.fixture
def seller(shared_seller: RunningSimulator) -> RunningSimulator:
    """That provider, with an empty bill and no faults."""
    shared_seller.reset()
    return shared_seller


@pytest.fixture
def limited(followed: Stack) -> Stack:
    """A new organization in that installation."""
    return followed.tenant(f"limited-{next(_NUMBERS)}")


@pytest.fixture
def until():
    """Let the loop turn until sockets have done what they will; the test's time-out is the bound."""

    async def until(condition):
        for _ in iter(condition, True):
            await asyncio.sleep(0.001)

    return until
