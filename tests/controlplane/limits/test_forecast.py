"""When a budget will be used up: whole numbers, and nothing where too little is known."""

from __future__ import annotations

from datetime import UTC, date, datetime

import pytest

from controlplane.clock import nanoseconds
from controlplane.limits.forecast import ELAPSED_NS_MIN, exhaustion_at_ns
from controlplane.limits.models import CAP_MAX, Period
from controlplane.limits.windows import Calendar, EveryDays, Lifetime, Rolling

HOUR_NS = 3_600 * 10**9
MIDNIGHT = nanoseconds(datetime(2026, 3, 14, tzinfo=UTC))
DAY = Calendar(Period.DAY, "UTC")


@pytest.mark.parametrize(
    ("cap", "settled", "hours", "exhausted_after_hours"),
    [
        (100, 50, 6, 12),
        (100, 25, 6, None),  # exactly at the end of the day
        (101, 25, 6, None),
        (99, 25, 6, 23.76),
        (100, 0, 6, None),
        (100, 100, 6, 6),
        (100, 170, 6, 6),
        (0, 0, 6, None),
        (CAP_MAX, CAP_MAX // 2 + 1, 6, 12),
    ],
)
def test_spending_goes_on_as_it_did(cap, settled, hours, exhausted_after_hours) -> None:
    found = exhaustion_at_ns(DAY, cap, settled, MIDNIGHT + hours * HOUR_NS)
    if exhausted_after_hours is None:
        assert found is None
    else:
        assert found is not None
        assert 0 <= MIDNIGHT + int(exhausted_after_hours * HOUR_NS) - found <= 1


def test_the_instant_is_rounded_up_to_the_nanosecond() -> None:
    now_ns = MIDNIGHT + HOUR_NS + 1
    assert exhaustion_at_ns(DAY, 3, 2, now_ns) == MIDNIGHT + (3 * (HOUR_NS + 1) + 1) // 2


def test_of_the_first_minutes_nothing_is_told() -> None:
    assert exhaustion_at_ns(DAY, 100, 50, MIDNIGHT + ELAPSED_NS_MIN - 1) is None
    assert exhaustion_at_ns(DAY, 100, 50, MIDNIGHT + ELAPSED_NS_MIN) == MIDNIGHT + 1_200 * 10**9


def test_other_windows() -> None:
    now_ns = MIDNIGHT + HOUR_NS
    since = Lifetime(datetime(2026, 3, 14, tzinfo=UTC))
    assert exhaustion_at_ns(since, 1_000, 1, now_ns) == MIDNIGHT + 1_000 * HOUR_NS
    assert exhaustion_at_ns(since, CAP_MAX, 1, now_ns) is None
    assert exhaustion_at_ns(Lifetime(None), 1_000, 999, now_ns) is None
    assert exhaustion_at_ns(Rolling(60), 1_000, 999, now_ns) is None
    every = EveryDays(2, date(2026, 3, 13), "UTC")
    assert exhaustion_at_ns(every, 50, 49, now_ns) == MIDNIGHT - 24 * HOUR_NS + -(
        -50 * 25 * HOUR_NS // 49
    )
