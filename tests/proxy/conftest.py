"""Fixtures of tests that turn the event loop themselves."""

from __future__ import annotations

import asyncio

import pytest


@pytest.fixture
def until():
    """Let the loop turn until sockets have done what they will; the test's time-out is the bound."""

    async def until(condition):
        for _ in iter(condition, True):
            await asyncio.sleep(0.001)

    return until
