"""Fixtures of the end-to-end tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from comptroller.simulator.running import RunningSimulator, simulator_in_thread
from comptroller.simulator.settings import SimulatorSettings
from tests.stack import Stack, running_stack


@pytest.fixture
def provider() -> Iterator[RunningSimulator]:
    """A simulated provider of the test's own."""
    with simulator_in_thread(SimulatorSettings()) as running:
        yield running


@pytest.fixture
def stack(tmp_path: Path, provider: RunningSimulator) -> Iterator[Stack]:
    """An installation of the test's own, on SQLite."""
    with running_stack(tmp_path, provider) as running:
        yield running
