"""What must be true after every refusal: nothing sent, nothing held, nothing charged."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from comptroller.simulator.running import RunningSimulator
from tests.stack import Stack

WAIT_S = 30


def assert_untouched(
    stack: Stack, provider: RunningSimulator, recorded: Sequence[str] = ()
) -> None:
    """Check that no request cost anything, and that these codes and no more are on record."""
    assert provider.bill()["requests"] == 0
    assert stack.open_reservations() == 0
    assert stack.ledger() == []
    records = stack.records()
    assert [record.code for record in records] == list(recorded)
    assert {record.decision for record in records} <= {"refused"}
    assert {(record.held_nanos, record.charge_nanos) for record in records} <= {(0, 0)}


def wait_until(is_so: Callable[[], bool]) -> None:
    """Wait for a condition; fails when it does not come true."""
    deadline = time.monotonic() + WAIT_S
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.01)
