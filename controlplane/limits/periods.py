"""From when to when a window counts at an instant, and windows that are about to change.

The engine says where periods begin and end, so that nobody here can see it differently.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import msgspec

from controlplane.clock import instant, nanoseconds
from controlplane.limits.forms import bare_snapshot, limit_form
from controlplane.limits.models import LimitFields, LimitKind, Mode, Resource, ScopeKind
from controlplane.limits.subjects import Scope
from controlplane.limits.windows import (
    Calendar,
    EveryDays,
    Lifetime,
    Window,
    put_window,
    window_from,
    window_of,
)
from core_rs import Engine

# Later than any request; the engine only wants a clock that does not go back.
MONO_NS = 1 << 62

_ANY = UUID(int=1)


@dataclass(frozen=True, slots=True)
class Span:
    """A period, half-open, in nanoseconds since the epoch; one without end ends at None."""

    starts_at_ns: int
    ends_at_ns: int | None


def period_at(window: Window, now_ns: int) -> Span | None:
    """Find the period of a window at an instant; None for rolling windows and gauges."""
    if isinstance(window, Lifetime):
        starts_at = window.starts_at
        return Span(0 if starts_at is None else nanoseconds(starts_at), None)
    if not isinstance(window, Calendar | EveryDays):
        return None
    limit = limit_form(
        _ANY,
        LimitKind.BUDGET,
        Scope(ScopeKind.ORGANIZATION, _ANY),
        Resource.SPEND,
        window.form(),
        0,
        Mode.HARD,
    )
    snapshot = bare_snapshot(_ANY, [limit])
    [found] = msgspec.json.decode(Engine().missing_counters(snapshot, now_ns, MONO_NS))
    return Span(found["starts_at_ns"], found["ends_at_ns"])


def window_at(row: LimitFields, now: datetime) -> Window:
    """Tell over which window a limit counts at an instant."""
    if row.next_window is not None and row.next_from is not None and row.next_from <= now:
        return window_from(row.next_window)
    return window_of(row)


def latest_window(row: LimitFields) -> Window:
    """Tell over which window a limit counts, or will after the next boundary."""
    return window_of(row) if row.next_window is None else window_from(row.next_window)


def promote(row: LimitFields, now: datetime) -> None:
    """Make the window that has come into force meanwhile the limit's own."""
    if row.next_from is not None and row.next_from <= now:
        put_window(row, window_at(row, now))
        row.next_window = row.next_from = None


def change_window(row: LimitFields, window: Window, now: datetime) -> None:
    """Give a limit in force another window from the next boundary of its own on.

    What has been counted stays counted; the window it has already cancels a change to come.
    """
    promote(row, now)
    old = window_of(row)
    if old == window:
        if row.next_window is not None:
            row.next_window = row.next_from = None
        return
    span = period_at(old, nanoseconds(now))
    if span is None or span.ends_at_ns is None:
        raise AssertionError(f"limit {row.slot} has no boundary")
    row.next_window, row.next_from = window.form(), instant(span.ends_at_ns)
