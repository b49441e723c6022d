"""Fixtures of tests that run a whole installation.

One installation serves them all, each test in an organization of its own: starting a server takes
longer than most tests.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count

import pytest
from sqlalchemy import delete

from comptroller.simulator.running import RunningSimulator, simulator_in_thread
from comptroller.simulator.settings import SimulatorSettings
from controlplane.calibrations.models import Calibration
from tests.stack import Stack, running_stack

_NUMBERS = count(1)


@pytest.fixture(scope="session")
def shared_provider() -> Iterator[RunningSimulator]:
    """The simulated provider behind the shared installation."""
    with simulator_in_thread(SimulatorSettings()) as running:
        yield running


@pytest.fixture(scope="session")
def installation(
    tmp_path_factory: pytest.TempPathFactory, shared_provider: RunningSimulator
) -> Iterator[Stack]:
    """The shared installation, on SQLite."""
    folder = tmp_path_factory.mktemp("installation")
    with running_stack(folder, shared_provider, organization=False) as running:
        yield running


@pytest.fixture
def provider(shared_provider: RunningSimulator) -> RunningSimulator:
    """The simulated provider with an empty bill and no faults."""
    shared_provider.reset()
    return shared_provider


@pytest.fixture
def stack(installation: Stack) -> Stack:
    """A new organization, with a team and a member, in the shared installation.

    What other tests taught it about models is forgotten.
    """
    stack = installation.tenant(f"org-{next(_NUMBERS)}")
    stack.run(stack.comptroller.recorder.flush)
    stack.change(lambda work: work.session.execute(delete(Calibration)))
    stack.comptroller.proxy._calibrations.replace({})
    return stack
