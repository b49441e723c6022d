"""When a limit will be used up, if spending goes on as it did since its period began."""

from __future__ import annotations

from controlplane.clock import nanoseconds
from controlplane.limits.periods import period_at
from controlplane.limits.windows import Lifetime, Window

# Of a few minutes nothing can be told: a period's first request would use it up by noon.
ELAPSED_NS_MIN = 600 * 1_000_000_000
# The API shows instants up to the year 2261; what lasts longer is as good as endless.
LATEST_NS = 9_190_000_000 * 1_000_000_000


def exhaustion_at_ns(window: Window, cap: int, settled: int, as_of_ns: int) -> int | None:
    """Find the instant at which what is settled reaches the cap, rounded up to the nanosecond.

    Only what is settled counts, and the time since the period began. None when that instant is
    not before the period's end, and when nothing or too short a time is known. What is used up
    already is so as of now.
    """
    started_ns, ends_at_ns = _bounds(window, as_of_ns)
    if started_ns is None or settled <= 0:
        return None
    if settled >= cap:
        return as_of_ns
    elapsed_ns = as_of_ns - started_ns
    if elapsed_ns < ELAPSED_NS_MIN:
        return None
    at_ns = started_ns - (-cap * elapsed_ns // settled)
    return at_ns if at_ns < ends_at_ns else None


def _bounds(window: Window, as_of_ns: int) -> tuple[int | None, int]:
    if isinstance(window, Lifetime):
        # Without a beginning there is no time over which it was spent.
        starts_at = window.starts_at
        return (None if starts_at is None else nanoseconds(starts_at)), LATEST_NS
    span = period_at(window, as_of_ns)
    if span is None:
        return None, LATEST_NS
    return span.starts_at_ns, span.ends_at_ns or LATEST_NS
