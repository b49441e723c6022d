"""The window somebody asks for, made complete with what is left out."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from uuid import UUID
from zoneinfo import ZoneInfo

from controlplane.context import Work
from controlplane.errors import InvalidInput
from controlplane.inputs import checked_number, checked_time_zone
from controlplane.keys.queries import key_by_id
from controlplane.limits.models import Limit, Period, ScopeKind
from controlplane.limits.periods import latest_window, window_at
from controlplane.limits.subjects import Scope
from controlplane.limits.windows import DAYS_MAX, Calendar, EveryDays, Lifetime, Window
from controlplane.tenancy.queries import organization_by_id

_YEARS = range(1971, 2200)
_FIRST = datetime(1970, 1, 1, tzinfo=UTC)
_LAST = datetime(2200, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class WindowAsked:
    """Exactly one of a calendar period, a number of days, and all time.

    `anchor` goes with days, `starts_at` with all time, `time_zone` with the other two; what is
    None stays as it was, or is made up.
    """

    period: Period | None = None
    days: int | None = None
    anchor: date | None = None
    is_lifetime: bool = False
    starts_at: datetime | None = None
    time_zone: str | None = None

    @property
    def is_none(self) -> bool:
        """Whether no window is asked for."""
        return self.period is None and self.days is None and not self.is_lifetime

    def check(self, *, may_be_none: bool = False) -> None:
        """Refuse several windows, none unless it may stay as it was, and values out of range.

        Raises `InvalidInput`.
        """
        asked = (self.period is not None, self.days is not None, self.is_lifetime)
        if sum(asked) != 1 and not (may_be_none and self.is_none):
            raise InvalidInput("Give one of period, everyDays, lifetime.", field=("period",))
        if self.days is not None:
            checked_number(self.days, "days", 1, DAYS_MAX)
        if self.anchor is not None and self.anchor.year not in _YEARS:
            raise InvalidInput("Use a date from 1971 to 2199.", field=("everyDays", "anchor"))
        if self.starts_at is not None and not _FIRST <= self.starts_at <= _LAST:
            raise InvalidInput("Use an instant from 1970 to 2199.", field=("lifetime", "startsAt"))
        if self.time_zone is not None:
            checked_time_zone(self.time_zone)
            if self.is_lifetime:
                raise InvalidInput("All time has no time zone.", field=("timezone",))

    @property
    def like(self) -> Window:
        """A window of this name, in whatever time zone, to find the slot by."""
        if self.period is not None:
            return Calendar(self.period, "UTC")
        if self.days is not None:
            return EveryDays(self.days, _FIRST.date(), "UTC")
        return Lifetime(None)


async def completed(
    work: Work, organization_id: UUID, scope: Scope, asked: WindowAsked, known: Limit | None
) -> Window:
    """Make a whole window: what is left out stays, at first it is the organization's time zone.

    Days are counted from the day on which a key was made, for other scopes from today.

    Raises `InvalidInput` for one that would change what never ends.
    """
    current = None if known is None else window_at(known, work.now)
    if isinstance(current, Lifetime):
        return _same_lifetime(current, asked)
    old = None if known is None else latest_window(known)
    if asked.is_none and old is not None:
        return _in_zone(old, asked.time_zone)
    if asked.is_lifetime:
        kept = old.starts_at if isinstance(old, Lifetime) else None
        return Lifetime(asked.starts_at or kept)
    zone = asked.time_zone or await _zone_kept(work, organization_id, old)
    if asked.period is not None:
        return Calendar(asked.period, zone)
    anchor = asked.anchor
    if anchor is None and isinstance(old, EveryDays):
        anchor = old.anchor
    if anchor is None:
        anchor = await _first_day(work, organization_id, scope, zone)
    return EveryDays(asked.days or 1, anchor, zone)


def _in_zone(old: Window, time_zone: str | None) -> Window:
    """Keep a window, in another time zone if one is given."""
    if time_zone is None or not isinstance(old, Calendar | EveryDays):
        return old
    return replace(old, time_zone=time_zone)


def _same_lifetime(old: Lifetime, asked: WindowAsked) -> Lifetime:
    is_kept = asked.is_lifetime or asked.is_none
    is_same = is_kept and asked.starts_at in {None, old.starts_at}
    if not is_same:
        raise InvalidInput(
            "What counts all time has no next period in which it could change; lift it, and "
            "create another.",
            field=("lifetime",),
        )
    return old


async def _zone_kept(work: Work, organization_id: UUID, old: Window | None) -> str:
    if isinstance(old, Calendar | EveryDays):
        return old.time_zone
    return (await organization_by_id(work.session, organization_id)).time_zone


async def _first_day(work: Work, organization_id: UUID, scope: Scope, zone: str) -> date:
    since = work.now
    if scope.kind is ScopeKind.KEY:
        since = (await key_by_id(work.session, organization_id, scope.id)).created_at
    return since.astimezone(ZoneInfo(zone)).date()
