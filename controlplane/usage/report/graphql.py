"""Reports over requests in the API."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from typing import Annotated, Final
from uuid import UUID
from zoneinfo import ZoneInfo

import strawberry

from controlplane.api.fields import enumeration
from controlplane.api.nodes import Node, NodeKind, global_id
from controlplane.api.request import Info
from controlplane.api.scalars import BigInt, Money
from controlplane.clock import instant
from controlplane.errors import InvalidInput
from controlplane.inputs import checked_number
from controlplane.tenancy import models
from controlplane.tenancy.graphql import see_member, see_team
from controlplane.usage.filters import checked_label, within_sight
from controlplane.usage.graphql import UsageFilter, see_key
from controlplane.usage.report.buckets import Bucket, calendar
from controlplane.usage.report.queries import (
    DIMENSIONS_MAX,
    Dimension,
    Question,
    Report,
    Series,
    Value,
    empty_report,
    read_report,
)
from controlplane.usage.spend.graphql import (
    SpendTotals,
    TimeRange,
    TimeRangeValue,
    spend_totals_of,
)
from controlplane.usage.totals import Totals

TOP_DEFAULT: Final = 10
TOP_MAX: Final = 50
# Each is an object of ten fields, and an answer is made in one go: all of them take about 1 s.
POINTS_MAX: Final = 10_000
NONE_LABEL: Final = "(none)"
GONE_LABEL: Final = "(deleted)"

enumeration(
    Bucket,
    "Bucket",
    "How long a bucket of a report is; each begins as the calendar of the time zone does.",
    {
        Bucket.MINUTE: "A minute.",
        Bucket.HOUR: "An hour; one that is repeated when the clock is set back is two buckets.",
        Bucket.DAY: "A day from midnight on: 23 or 25 hours when the clock is changed.",
        Bucket.WEEK: "A week from Monday on.",
        Bucket.MONTH: "A month from its first day on.",
    },
)
enumeration(
    Dimension,
    "UsageDimension",
    "What requests are told apart by.",
    {
        Dimension.TEAM: "The team that the key was of.",
        Dimension.MEMBER: "The member that the key was of.",
        Dimension.KEY: "The key.",
        Dimension.MODEL: "The model that answered; of refused requests the one asked for.",
        Dimension.PROVIDER: "The provider that was called.",
        Dimension.COST_CENTER: "The cost center it is booked on.",
        Dimension.FEATURE: "The feature, as the caller said.",
        Dimension.AGENT: "The agent, as the caller said.",
        Dimension.END_USER: "The end user, as the caller said.",
        Dimension.SESSION: "The session or task, as the caller said.",
        Dimension.ENVIRONMENT: "The environment, as the caller said.",
        Dimension.REQUEST_CLASS: "The class, as the caller said.",
        Dimension.OUTCOME: "`allowed`, `refused` or `failed`.",
        Dimension.CODE: "The code of the refusal or failure.",
        Dimension.TAG: "The value of the tag named in the argument `tag`.",
    },
)


@strawberry.type(description="What the requests of a series have in common, in one dimension.")
class DimensionValue:
    """What the requests of a series have in common."""

    dimension: Dimension = strawberry.field(description="In which dimension.")
    key: str | None = strawberry.field(
        description="The value, a global id where it is an object; null: they have none."
    )
    label: str = strawberry.field(description="The value for people: a name, `(none)` for null.")
    node: Node | None = strawberry.field(
        description="The object, where it is one and you may see it."
    )


@strawberry.type(description="What was spent in one bucket of time.")
class UsagePoint:
    """What was spent in one bucket of time."""

    start: datetime = strawberry.field(
        description="When the bucket begins; of the first, only what is in the range counts."
    )
    end: datetime = strawberry.field(
        description="When it ends, exclusive; of the last, only what is in the range counts."
    )
    cost: Money = strawberry.field(description="What was booked.")
    requests: BigInt = strawberry.field(description="All requests, refused and failed ones too.")
    blocked: BigInt = strawberry.field(description="Requests that were refused.")
    failed: BigInt = strawberry.field(description="Requests that were let through and failed.")
    input_tokens: BigInt = strawberry.field(description="Tokens read.")
    output_tokens: BigInt = strawberry.field(description="Tokens written.")
    cached_tokens: BigInt = strawberry.field(description="Tokens read from the provider's cache.")


@strawberry.type(description="Requests with the same values, over time.")
class UsageSeries:
    """Requests with the same values, over time."""

    dimensions: list[DimensionValue] = strawberry.field(
        description="What they have in common, as in `groupBy`; empty for the rest."
    )
    is_other: bool = strawberry.field(
        description="Whether this is the rest: all groups after the first `top`."
    )
    totals: SpendTotals = strawberry.field(description="What they add up to.")
    points: list[UsagePoint] = strawberry.field(
        description="One for each bucket, in order, also where there were no requests."
    )


@strawberry.type(description="What was spent, over time, by up to two dimensions.")
class UsageReport:
    """What was spent, over time."""

    range: TimeRangeValue = strawberry.field(description="The range reported on.")
    bucket: Bucket = strawberry.field(description="How long a bucket is.")
    totals: SpendTotals = strawberry.field(
        description="All requests together: exactly the sum of all series."
    )
    series: list[UsageSeries] = strawberry.field(
        description="The groups, dearest first, the rest last; one when there is no `groupBy`."
    )
    truncated: bool = strawberry.field(
        description="Whether groups after the first `top` were folded into a series `isOther`."
    )
    as_of: datetime = strawberry.field(
        description="When it was read; the newest requests may not have been on record yet."
    )


# Arguments of a report.
ByBucket = Annotated[Bucket, strawberry.argument(description="How long a bucket is.")]
ByDimensions = Annotated[
    list[Dimension],
    strawberry.argument(description="By what requests are told apart, at most two."),
]
OfTag = Annotated[
    str | None, strawberry.argument(description="The name of the tag, to group by TAG.")
]
Top = Annotated[
    int,
    strawberry.argument(
        description="How many groups to show, dearest first, 1 to 50; the others are one series."
    ),
]


@dataclass(frozen=True, slots=True)
class Asked:
    """The arguments of a report."""

    range: TimeRange
    bucket: Bucket
    group_by: Sequence[Dimension]
    tag: str | None
    filter: UsageFilter | None
    top: int


async def usage_of(info: Info, organization: models.Organization, asked: Asked) -> UsageReport:
    """Report on the requests that the caller may see.

    Raises `InvalidInput`, `NotFound`.
    """
    now_ns = info.context.backend.installation.clock.wall_ns()
    # Ten years take 20 ms to lay out, in which nothing else would be served.
    question = await asyncio.to_thread(_question, organization, asked, now_ns)
    report = await _read(info, question)
    return UsageReport(
        range=TimeRangeValue(
            start=instant(question.starts_ns),
            end=instant(question.ends_ns),
            timezone=asked.range.timezone or organization.time_zone,
        ),
        bucket=asked.bucket,
        totals=spend_totals_of(report.totals),
        series=await _series(info, question, report),
        truncated=report.truncated,
        as_of=instant(now_ns),
    )


def _question(organization: models.Organization, asked: Asked, now_ns: int) -> Question:
    starts_ns, ends_ns = asked.range.checked(now_ns)
    zone = ZoneInfo(asked.range.timezone or organization.time_zone)
    question = Question(
        organization_id=organization.id,
        starts_ns=starts_ns,
        ends_ns=ends_ns,
        calendar=calendar(starts_ns, ends_ns, zone, asked.bucket),
        dimensions=_dimensions(asked.group_by, asked.tag),
        tag=asked.tag,
        filter=(asked.filter or UsageFilter()).as_filter(organization.id),
        top=checked_number(asked.top, "top", 1, TOP_MAX),
    )
    _check_points(question)
    return question


async def _read(info: Info, question: Question) -> Report:
    allowed = within_sight(info.context.caller, question.organization_id, question.filter)
    if allowed is None:
        return empty_report(question)
    async with info.context.backend.database.read() as session:
        return await read_report(session, question.narrowed(allowed))


def _dimensions(group_by: Sequence[Dimension], tag: str | None) -> tuple[Dimension, ...]:
    if len(group_by) > DIMENSIONS_MAX or len(set(group_by)) < len(group_by):
        raise InvalidInput(
            f"Group by at most {DIMENSIONS_MAX} different dimensions.", field=("groupBy",)
        )
    if (Dimension.TAG in group_by) != (tag is not None):
        raise InvalidInput(
            "To group by TAG, name the tag in `tag`; without it leave `tag` out.", field=("tag",)
        )
    if tag is not None:
        checked_label(tag, "tag")
    return tuple(group_by)


def _check_points(question: Question) -> None:
    series = question.top + 1 if question.dimensions else 1
    points = series * question.calendar.buckets
    if points > POINTS_MAX:
        raise InvalidInput(
            f"Up to {series} series of {question.calendar.buckets} buckets are {points} points; "
            f"at most {POINTS_MAX} are allowed. Ask for a longer bucket, a shorter range or a "
            "smaller `top`.",
            field=("top",),
        )


async def _series(info: Info, question: Question, report: Report) -> list[UsageSeries]:
    names = [
        await _named(info, question, dimension, {each.values[place] for each in _shown(report)})
        for place, dimension in enumerate(question.dimensions)
    ]
    edges = [instant(each) for each in question.calendar.edges_ns]
    spans = list(pairwise(edges))
    return [
        UsageSeries(
            dimensions=[found[value] for found, value in zip(names, each.values, strict=False)],
            is_other=each.is_other,
            totals=spend_totals_of(each.totals),
            points=[_point(span, totals) for span, totals in zip(spans, each.points, strict=True)],
        )
        for each in report.series
    ]


def _shown(report: Report) -> Iterable[Series]:
    return (each for each in report.series if not each.is_other)


def _point(span: tuple[datetime, datetime], totals: Totals) -> UsagePoint:
    return UsagePoint(
        start=span[0],
        end=span[1],
        cost=Money(totals.cost_nanos),
        requests=BigInt(totals.requests),
        blocked=BigInt(totals.blocked),
        failed=BigInt(totals.failed),
        input_tokens=BigInt(totals.input_tokens),
        output_tokens=BigInt(totals.output_tokens),
        cached_tokens=BigInt(totals.cached_tokens),
    )


# How people call an object, and the object if the caller may see it.
_Name = tuple[str, Node | None]


async def _named(
    info: Info, question: Question, dimension: Dimension, values: set[Value]
) -> dict[Value, DimensionValue]:
    """Show values; objects are loaded all at once."""
    ordered = list(values)
    found = await asyncio.gather(
        *(_value(info, question.organization_id, dimension, each) for each in ordered)
    )
    return dict(zip(ordered, found, strict=True))


async def _value(
    info: Info, organization_id: UUID, dimension: Dimension, value: Value
) -> DimensionValue:
    if value is None:
        return DimensionValue(dimension=dimension, key=None, label=NONE_LABEL, node=None)
    if isinstance(value, str):
        return DimensionValue(dimension=dimension, key=value, label=value, node=None)
    kind, find = _OBJECTS[dimension]
    label, node = await find(info, organization_id, value)
    key = global_id(kind, organization_id, value)
    return DimensionValue(dimension=dimension, key=key, label=label, node=node)


async def _team(info: Info, organization_id: UUID, team_id: UUID) -> _Name:
    row = await info.context.loaders.teams.load((organization_id, team_id))
    return (GONE_LABEL, None) if row is None else (row.name, see_team(info, row))


async def _member(info: Info, organization_id: UUID, member_id: UUID) -> _Name:
    row = await info.context.loaders.members.load((organization_id, member_id))
    user = None if row is None else await info.context.loaders.users.load(row.user_id)
    if row is None or user is None:
        return GONE_LABEL, None
    return user.name or user.email, see_member(info, row)


async def _key(info: Info, organization_id: UUID, key_id: UUID) -> _Name:
    row = await info.context.loaders.keys.load((organization_id, key_id))
    return (GONE_LABEL, None) if row is None else (row.name, see_key(info, row))


async def _cost_center(info: Info, organization_id: UUID, cost_center_id: UUID) -> _Name:
    row = await info.context.loaders.cost_centers.load((organization_id, cost_center_id))
    return (GONE_LABEL if row is None else f"{row.code} {row.name}"), None


_OBJECTS: Final[
    Mapping[Dimension, tuple[NodeKind, Callable[[Info, UUID, UUID], Awaitable[_Name]]]]
] = {
    Dimension.TEAM: (NodeKind.TEAM, _team),
    Dimension.MEMBER: (NodeKind.MEMBER, _member),
    Dimension.KEY: (NodeKind.KEY, _key),
    Dimension.COST_CENTER: (NodeKind.COST_CENTER, _cost_center),
}
