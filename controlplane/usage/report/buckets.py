"""Buckets of time in any time zone, as numbers that SQL can work out by one division.

The offset of a zone from UTC is constant between two of its transitions. In each such stretch the
local clock runs evenly, so that an instant's minute, hour, day or week is a whole-number division
of its nanoseconds. What is left, to which bucket each of these **slots** belongs, is a list made
here. A month is a bucket of days.

Daylight saving:

- A day begins at its first local midnight, or when it comes first if midnight is skipped. It has
  23 or 25 hours when the clock is changed in it.
- An hour that is repeated is two buckets; a change by half an hour makes one of half an hour.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Final
from zoneinfo import ZoneInfo

from controlplane.errors import InvalidInput

# A day by minutes has 1,440, two months by hours 1,488.
BUCKETS_MAX = 1_500
RANGE_DAYS_MAX = 3_700

_SECOND_NS: Final = 1_000_000_000
_HOUR_NS: Final = 3_600 * _SECOND_NS
_DAY_NS: Final = 24 * _HOUR_NS
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
# No zone has changed its offset twice within a day and back.
_SEARCH_STEP_S: Final = 86_400


class Bucket(StrEnum):
    """How long a bucket is; all begin as a calendar in the time zone of the range does."""

    MINUTE = "minute"
    HOUR = "hour"
    DAY = "day"
    WEEK = "week"
    MONTH = "month"


# How long a slot is, where in local time slots begin, and how far from an instant the bucket that
# holds it may begin or end. The epoch was a Thursday; weeks begin on Monday.
_SLOTS: Final = {
    Bucket.MINUTE: (_HOUR_NS // 60, 0, _HOUR_NS // 30),
    Bucket.HOUR: (_HOUR_NS, 0, 2 * _HOUR_NS),
    Bucket.DAY: (_DAY_NS, 0, 3 * _DAY_NS),
    Bucket.WEEK: (7 * _DAY_NS, -3 * _DAY_NS, 10 * _DAY_NS),
    Bucket.MONTH: (_DAY_NS, 0, 34 * _DAY_NS),
}
_SHORTEST_NS: Final = {
    Bucket.MINUTE: _HOUR_NS // 60,
    Bucket.HOUR: _HOUR_NS,
    Bucket.DAY: _DAY_NS,
    Bucket.WEEK: 7 * _DAY_NS,
    Bucket.MONTH: 28 * _DAY_NS,
}


@dataclass(frozen=True, slots=True)
class Stretch:
    """A time of constant offset, up to `ends_ns`: a slot is (instant - zero) // length of slots."""

    ends_ns: int
    zero_ns: int


@dataclass(frozen=True, slots=True)
class Calendar:
    """The buckets that hold a range, and how an instant finds its own.

    `edges_ns` are the beginnings of the buckets and the end of the last. `slots` gives each slot
    the number of its bucket.
    """

    edges_ns: tuple[int, ...]
    slot_ns: int
    stretches: tuple[Stretch, ...]
    slots: tuple[int, ...]

    @property
    def buckets(self) -> int:
        """Count the buckets."""
        return len(self.edges_ns) - 1


def calendar(starts_ns: int, ends_ns: int, zone: ZoneInfo, bucket: Bucket) -> Calendar:
    """Lay out the buckets that hold [starts, ends), the first and the last whole.

    Raises `InvalidInput` when there are more than `BUCKETS_MAX`, or the range is too long.
    """
    _check_length(ends_ns - starts_ns, bucket)
    slot_ns, origin_ns, margin_ns = _SLOTS[bucket]
    stretches: list[Stretch] = []
    begins: list[int] = []
    labels: list[int | None] = []
    for begin_ns, end_ns, offset_ns in _offsets(starts_ns - margin_ns, ends_ns + margin_ns, zone):
        number = (begin_ns + offset_ns - origin_ns) // slot_ns
        slot_begin_ns = origin_ns + number * slot_ns - offset_ns
        stretches.append(Stretch(end_ns, slot_begin_ns - len(begins) * slot_ns))
        while slot_begin_ns < end_ns:
            begins.append(max(slot_begin_ns, begin_ns))
            labels.append(_label(bucket, number))
            slot_begin_ns, number = slot_begin_ns + slot_ns, number + 1
    edges_ns, buckets = _gather(begins, labels)
    return _cut(Calendar(tuple(edges_ns), slot_ns, tuple(stretches), buckets), starts_ns, ends_ns)


def too_many_buckets() -> InvalidInput:
    """Make the refusal of too fine a question."""
    return InvalidInput(
        f"A report has at most {BUCKETS_MAX} buckets; ask for a longer bucket or a shorter range.",
        field=("bucket",),
    )


def _check_length(range_ns: int, bucket: Bucket) -> None:
    if range_ns > RANGE_DAYS_MAX * _DAY_NS:
        raise InvalidInput(
            f"A report is over at most {RANGE_DAYS_MAX} days; ask for a shorter range.",
            field=("range",),
        )
    # Before anything is laid out; days are on the average no shorter than this.
    if range_ns // _SHORTEST_NS[bucket] > BUCKETS_MAX + 1:
        raise too_many_buckets()


def _gather(begins: list[int], labels: list[int | None]) -> tuple[list[int], tuple[int, ...]]:
    """Join slots to buckets; what a clock set back repeats of an earlier day stays where it is."""
    edges_ns: list[int] = []
    buckets: list[int] = []
    newest: int | None = None
    for begin_ns, label in zip(begins, labels, strict=True):
        if label is None or newest is None or label > newest:
            edges_ns.append(begin_ns)
            newest = label
        buckets.append(len(edges_ns) - 1)
    return edges_ns, tuple(buckets)


def _cut(wide: Calendar, starts_ns: int, ends_ns: int) -> Calendar:
    """Leave the buckets that hold some of the range: none if it is empty."""
    first = bisect_right(wide.edges_ns, starts_ns) - 1
    last = bisect_right(wide.edges_ns, ends_ns - 1) - 1 if ends_ns > starts_ns else first - 1
    if last - first + 1 > BUCKETS_MAX:
        raise too_many_buckets()
    return Calendar(
        edges_ns=wide.edges_ns[first : last + 2],
        slot_ns=wide.slot_ns,
        stretches=wide.stretches,
        slots=tuple(bucket - first for bucket in wide.slots),
    )


def _label(bucket: Bucket, number: int) -> int | None:
    """Say which day, week or month a slot is in; an hour and a minute are no more than a slot."""
    if bucket in {Bucket.MINUTE, Bucket.HOUR}:
        return None
    if bucket is not Bucket.MONTH:
        return number
    day = _EPOCH + timedelta(days=number)
    return day.year * 12 + day.month


def _offsets(starts_ns: int, ends_ns: int, zone: ZoneInfo) -> Iterator[tuple[int, int, int]]:
    """Cut a range where the zone's offset changes: begin, end and offset in nanoseconds."""
    begin_ns, offset_s = starts_ns, _offset_s(starts_ns // _SECOND_NS, zone)
    for change_s, changed_s in _changes(starts_ns // _SECOND_NS, ends_ns // _SECOND_NS, zone):
        yield begin_ns, change_s * _SECOND_NS, offset_s * _SECOND_NS
        begin_ns, offset_s = change_s * _SECOND_NS, changed_s
    yield begin_ns, ends_ns, offset_s * _SECOND_NS


def _changes(first_s: int, last_s: int, zone: ZoneInfo) -> Iterable[tuple[int, int]]:
    """Find the seconds at which the offset changes, and to what."""
    low_s, offset_s = first_s, _offset_s(first_s, zone)
    while low_s < last_s:
        high_s = min(low_s + _SEARCH_STEP_S, last_s)
        changed_s = _offset_s(high_s, zone)
        if changed_s != offset_s:
            yield _first_with(changed_s, low_s, high_s, zone), changed_s
        low_s, offset_s = high_s, changed_s


def _first_with(offset_s: int, low_s: int, high_s: int, zone: ZoneInfo) -> int:
    while high_s - low_s > 1:
        middle_s = (low_s + high_s) // 2
        if _offset_s(middle_s, zone) == offset_s:
            high_s = middle_s
        else:
            low_s = middle_s
    return high_s


def _offset_s(instant_s: int, zone: ZoneInfo) -> int:
    offset = (_EPOCH + timedelta(seconds=instant_s)).astimezone(zone).utcoffset()
    return 0 if offset is None else offset.days * 86_400 + offset.seconds
