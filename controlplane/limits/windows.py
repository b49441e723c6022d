"""Windows of limits as values: how a limit's row, its slot and the snapshot spell them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

from controlplane.canonical import canonical_hash
from controlplane.clock import instant, nanoseconds
from controlplane.columns import Json
from controlplane.limits.models import LimitFields, Period, Resource, WindowKind
from controlplane.limits.where import Where

DAYS_MAX = 366

_COLUMNS = ("seconds", "period", "days", "anchor", "starts_at", "time_zone")


@dataclass(frozen=True, slots=True)
class Rolling:
    """The last `seconds` seconds."""

    seconds: int

    @property
    def name(self) -> str:
        """Spell the window for a slot."""
        return f"{WindowKind.ROLLING.value}:{self.seconds}"

    def form(self) -> Json:
        """Write the window as the engine reads it."""
        return {"kind": WindowKind.ROLLING.value, "seconds": self.seconds}


@dataclass(frozen=True, slots=True)
class Calendar:
    """A calendar period in a time zone; the zone is no part of the slot."""

    period: Period
    time_zone: str

    @property
    def name(self) -> str:
        """Spell the window for a slot."""
        return f"{WindowKind.CALENDAR.value}:{self.period.value}"

    def form(self) -> Json:
        """Write the window as the engine reads it."""
        kind = WindowKind.CALENDAR.value
        return {"kind": kind, "period": self.period.value, "time_zone": self.time_zone}


@dataclass(frozen=True, slots=True)
class EveryDays:
    """Periods of `days` calendar days from midnight of a date on; the date is not in the slot."""

    days: int
    anchor: date
    time_zone: str

    @property
    def name(self) -> str:
        """Spell the window for a slot."""
        return f"{WindowKind.DAYS.value}:{self.days}"

    def form(self) -> Json:
        """Write the window as the engine reads it."""
        return {
            "kind": WindowKind.DAYS.value,
            "days": self.days,
            "anchor": self.anchor.isoformat(),
            "time_zone": self.time_zone,
        }


@dataclass(frozen=True, slots=True)
class Lifetime:
    """All time from an instant on, None meaning all there ever was."""

    starts_at: datetime | None = None

    @property
    def name(self) -> str:
        """Spell the window for a slot."""
        return WindowKind.LIFETIME.value

    def form(self) -> Json:
        """Write the window as the engine reads it."""
        starts_at_ns = 0 if self.starts_at is None else nanoseconds(self.starts_at)
        return {"kind": WindowKind.LIFETIME.value, "starts_at_ns": starts_at_ns}


@dataclass(frozen=True, slots=True)
class Now:
    """This moment: a gauge of what is under way."""

    @property
    def name(self) -> str:
        """Spell the window for a slot."""
        return WindowKind.NOW.value

    def form(self) -> Json:
        """Write the window as the engine reads it."""
        return {"kind": WindowKind.NOW.value}


Window = Rolling | Calendar | EveryDays | Lifetime | Now


def window_of(row: LimitFields) -> Window:
    """Read the window of a limit's row, without regard to the one that is to follow."""
    kind = row.window_kind
    if kind is WindowKind.CALENDAR and row.window_period and row.window_time_zone:
        return Calendar(row.window_period, row.window_time_zone)
    if kind is WindowKind.DAYS and row.window_anchor and row.window_time_zone:
        return EveryDays(row.window_days or 1, row.window_anchor, row.window_time_zone)
    if kind is WindowKind.ROLLING and row.window_seconds:
        return Rolling(row.window_seconds)
    if kind is WindowKind.LIFETIME:
        return Lifetime(row.window_starts_at)
    if kind is WindowKind.NOW:
        return Now()
    raise AssertionError(f"limit {row.slot} has no {kind.value} window")


def window_from(form: Json) -> Window:
    """Read a window as it was written by `form`."""
    kind = WindowKind(form["kind"])
    if kind is WindowKind.CALENDAR:
        return Calendar(Period(form["period"]), form["time_zone"])
    if kind is WindowKind.DAYS:
        return EveryDays(form["days"], date.fromisoformat(form["anchor"]), form["time_zone"])
    if kind is WindowKind.ROLLING:
        return Rolling(form["seconds"])
    if kind is WindowKind.LIFETIME:
        return Lifetime(instant(form["starts_at_ns"]) if form["starts_at_ns"] else None)
    return Now()


def put_window(row: LimitFields, window: Window) -> None:
    """Write a window into the columns of a row."""
    row.window_kind = WindowKind(window.form()["kind"])
    for name in _COLUMNS:
        value: Any = getattr(window, name, None)
        if getattr(row, f"window_{name}", None) != value:
            setattr(row, f"window_{name}", value)


def slot_of(where: Where | None, resource: Resource, window: Window) -> str:
    """Spell what a scope can have one limit of a kind for."""
    slot = f"{resource.value}/{window.name}"
    return slot if where is None else f"{slot}/{canonical_hash(where)}"
