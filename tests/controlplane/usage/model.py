"""What a report must say, worked out the long way: one request after the other, in Python."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from itertools import pairwise
from typing import Any
from zoneinfo import ZoneInfo

from controlplane.clock import instant, nanoseconds
from controlplane.ledger.models import DecisionRow
from controlplane.usage.filters import RequestFilter
from controlplane.usage.report.buckets import Bucket
from controlplane.usage.report.queries import Dimension

MINUTE_NS = 60_000_000_000
# Transitions since 1970 are on a quarter of an hour in the zones that are asked about.
QUARTER_NS = 15 * MINUTE_NS


@dataclass(frozen=True)
class Expected:
    """Where buckets begin and end, and for each series its values and counts by bucket."""

    edges_ns: list[int]
    series: list[tuple[tuple[Any, ...], bool, list[dict[str, int]]]]


def expected(
    rows: Sequence[DecisionRow],
    starts_ns: int,
    ends_ns: int,
    zone: ZoneInfo,
    bucket: Bucket,
    dimensions: Sequence[Dimension],
    tag: str | None,
    wanted: RequestFilter,
    top: int,
) -> Expected:
    edges = fine_edges if bucket in {Bucket.MINUTE, Bucket.HOUR} else calendar_edges
    edges_ns = edges(starts_ns, ends_ns, zone, bucket)
    groups: dict[tuple[Any, ...], list[DecisionRow]] = {}
    for row in rows:
        if starts_ns <= row.admitted_at_ns < ends_ns and matches(row, wanted):
            groups.setdefault(tuple(value(row, each, tag) for each in dimensions), []).append(row)
    if not dimensions:
        groups.setdefault((), [])
    ordered = sorted(groups.items(), key=lambda item: rank(*item))
    series = [(values, False, points(members, edges_ns)) for values, members in ordered[:top]]
    rest = [row for _, members in ordered[top:] for row in members]
    if rest:
        series.append(((), True, points(rest, edges_ns)))
    return Expected(edges_ns, series)


def rank(values: tuple[Any, ...], members: list[DecisionRow]) -> tuple[Any, ...]:
    by_value = []
    for each in values:
        raw = each.encode() if isinstance(each, str) else getattr(each, "bytes", b"")
        by_value.append((each is None, raw))
    return (-sum(row.charge_nanos for row in members), -len(members), by_value)


def points(rows: list[DecisionRow], edges_ns: list[int]) -> list[dict[str, int]]:
    found = []
    for begin, end in pairwise(edges_ns):
        inside = [row for row in rows if begin <= row.admitted_at_ns < end]
        found.append(
            {
                "cost_nanos": sum(row.charge_nanos for row in inside),
                "requests": len(inside),
                "blocked": sum(row.decision == "refused" for row in inside),
                "failed": sum(row.decision == "failed" for row in inside),
                "input_tokens": sum(row.input_tokens for row in inside),
                "output_tokens": sum(row.output_tokens for row in inside),
                "cached_tokens": sum(row.cached_tokens for row in inside),
            }
        )
    return found


def value(row: DecisionRow, dimension: Dimension, tag: str | None) -> Any:
    if dimension is Dimension.TAG:
        return row.tags.get(tag)
    if dimension is Dimension.MODEL:
        return row.requested_model if row.served_model is None else row.served_model
    names = {
        Dimension.TEAM: "team_id",
        Dimension.MEMBER: "member_id",
        Dimension.KEY: "key_id",
        Dimension.COST_CENTER: "cost_center_id",
        Dimension.OUTCOME: "decision",
    }
    return getattr(row, names.get(dimension, dimension.value))


def matches(row: DecisionRow, wanted: RequestFilter) -> bool:
    tests: list[Callable[[], bool]] = [
        lambda: not wanted.team_ids or row.team_id in wanted.team_ids,
        lambda: not wanted.models or value(row, Dimension.MODEL, None) in wanted.models,
        lambda: not wanted.outcomes or row.decision in wanted.outcomes,
        lambda: not wanted.features or row.feature in wanted.features,
        lambda: all(
            row.tags.get(name) in [text for other, text in wanted.tags if other == name]
            for name, _ in wanted.tags
        ),
    ]
    return all(test() for test in tests)


def fine_edges(starts_ns: int, ends_ns: int, zone: ZoneInfo, bucket: Bucket) -> list[int]:
    """Step through time by what no hour begins between, and note where the label changes."""
    step = MINUTE_NS if bucket is Bucket.MINUTE else QUARTER_NS
    first = starts_ns // step * step
    if ends_ns <= starts_ns:
        return edges_back(first, zone, bucket, step)
    edges = edges_back(first, zone, bucket, step)
    moment = first
    while True:
        moment += step
        if label(moment, zone, bucket) != label(moment - step, zone, bucket):
            edges.append(moment)
            if moment >= ends_ns:
                return edges


def edges_back(first: int, zone: ZoneInfo, bucket: Bucket, step: int) -> list[int]:
    while label(first - step, zone, bucket) == label(first, zone, bucket):
        first -= step
    return [first]


def label(moment: int, zone: ZoneInfo, bucket: Bucket) -> tuple[Any, ...]:
    local = instant(moment).astimezone(zone)
    minute = local.minute if bucket is Bucket.MINUTE else 0
    return local.date(), local.hour, minute, local.utcoffset()


def calendar_edges(starts_ns: int, ends_ns: int, zone: ZoneInfo, bucket: Bucket) -> list[int]:
    """List the beginnings of days, weeks or months around the range."""
    day = instant(starts_ns).astimezone(zone).date() - timedelta(days=40)
    edges: list[int] = []
    while not edges or edges[-1] < max(ends_ns, starts_ns + 1):
        if begins(day, bucket):
            moment = midnight(day, zone)
            if not edges or moment > edges[-1]:
                edges.append(moment)
        day += timedelta(days=1)
    inside = max(n for n, edge in enumerate(edges) if edge <= starts_ns)
    return edges[inside:] if ends_ns > starts_ns else edges[inside : inside + 1]


def begins(day: date, bucket: Bucket) -> bool:
    if bucket is Bucket.MONTH:
        return day.day == 1
    return bucket is Bucket.DAY or day.weekday() == 0


def midnight(day: date, zone: ZoneInfo) -> int:
    return nanoseconds(datetime(day.year, day.month, day.day, tzinfo=zone))
