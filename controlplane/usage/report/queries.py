"""The one statement of a report, and what its rows say.

All figures come from one statement: two of them, even in one transaction, may see different
records on PostgreSQL, and then the rest would not be what is missing to the total.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, Final
from uuid import UUID

from sqlalchemy import (
    CTE,
    BigInteger,
    ColumnElement,
    Select,
    SQLColumnExpression,
    String,
    case,
    func,
    literal,
    select,
)
from sqlalchemy.ext.asyncio import AsyncSession

from controlplane.ledger.models import DecisionRow
from controlplane.usage.expressions import ByteOrder
from controlplane.usage.filters import MODEL, RequestFilter, conditions, tag_value
from controlplane.usage.report.buckets import Calendar
from controlplane.usage.totals import NOTHING, Totals, by_cost, parts, read_totals, sums, total

DIMENSIONS_MAX = 2
_DIMENSION_NAMES: Final = ("first_value", "second_value")


class Dimension(StrEnum):
    """What requests are told apart by."""

    TEAM = "team"
    MEMBER = "member"
    KEY = "key"
    MODEL = "model"
    PROVIDER = "provider"
    COST_CENTER = "cost_center"
    FEATURE = "feature"
    AGENT = "agent"
    END_USER = "end_user"
    SESSION = "session"
    ENVIRONMENT = "environment"
    REQUEST_CLASS = "request_class"
    OUTCOME = "outcome"
    CODE = "code"
    TAG = "tag"


_COLUMNS: Final[dict[Dimension, SQLColumnExpression[Any]]] = {
    Dimension.TEAM: DecisionRow.team_id,
    Dimension.MEMBER: DecisionRow.member_id,
    Dimension.KEY: DecisionRow.key_id,
    Dimension.MODEL: MODEL,
    Dimension.PROVIDER: DecisionRow.provider,
    Dimension.COST_CENTER: DecisionRow.cost_center_id,
    Dimension.FEATURE: DecisionRow.feature,
    Dimension.AGENT: DecisionRow.agent,
    Dimension.END_USER: DecisionRow.end_user,
    Dimension.SESSION: DecisionRow.session,
    Dimension.ENVIRONMENT: DecisionRow.environment,
    Dimension.REQUEST_CLASS: DecisionRow.request_class,
    Dimension.OUTCOME: DecisionRow.decision,
    Dimension.CODE: DecisionRow.code,
}

Value = UUID | str | None


@dataclass(frozen=True, slots=True)
class Question:
    """What a report is asked: `top` groups by `dimensions`, of requests in [starts, ends).

    `tag` is the name of the tag that the dimension of tags is about.
    """

    organization_id: UUID
    starts_ns: int
    ends_ns: int
    calendar: Calendar
    dimensions: tuple[Dimension, ...]
    tag: str | None
    filter: RequestFilter
    top: int

    def narrowed(self, wanted: RequestFilter) -> Question:
        """Ask the same about fewer requests."""
        return replace(self, filter=wanted)


@dataclass(frozen=True, slots=True)
class Series:
    """One group, or with no values the rest: its totals, and one for each bucket."""

    values: tuple[Value, ...]
    is_other: bool
    totals: Totals
    points: tuple[Totals, ...]


@dataclass(frozen=True, slots=True)
class Report:
    """The groups, dearest first, then the rest; totals are those of all series together."""

    totals: Totals
    series: tuple[Series, ...]

    @property
    def truncated(self) -> bool:
        """Tell whether there are more groups than were asked for."""
        return bool(self.series) and self.series[-1].is_other


async def read_report(session: AsyncSession, question: Question) -> Report:
    """Answer a question. Groups of equal cost come by requests, then by value, absent last.

    Raises `InvalidInput` for a filter that cannot be used.
    """
    groups: dict[int, _Group] = {}
    if not question.dimensions:
        groups[0] = _Group((), question.calendar.buckets)
    for row in await session.execute(report_query(question)):
        if row.place not in groups:
            values = tuple(getattr(row, name) for name in _names(question))
            groups[row.place] = _Group(values, question.calendar.buckets)
        groups[row.place].add(question.calendar.slots[row.slot], read_totals(row))
    series = tuple(groups[place].series(is_other=place > question.top) for place in sorted(groups))
    return Report(sum((each.totals for each in series), NOTHING), series)


def empty_report(question: Question) -> Report:
    """Answer a question about no requests at all."""
    alone = _Group((), question.calendar.buckets).series(is_other=False)
    return Report(NOTHING, () if question.dimensions else (alone,))


def report_query(question: Question) -> Select[*tuple[Any, ...]]:
    """Write the statement: a row for each group, or the rest, and slot with any requests."""
    cells = _cells(question)
    if not question.dimensions:
        return select(literal(0).label("place"), *cells.c)
    folded = _folded(question, _ranked(question, cells))
    keys = [folded.c[name] for name in ("place", *_names(question), "slot")]
    return select(*keys, *sums(folded)).group_by(*keys)


class _Group:
    """Gathers the rows of one group into buckets; a bucket may be of several slots."""

    def __init__(self, values: tuple[Value, ...], buckets: int) -> None:
        self._values = values
        self._points = [NOTHING] * buckets

    def add(self, bucket: int, totals: Totals) -> None:
        """Add what was found in a slot."""
        self._points[bucket] += totals

    def series(self, *, is_other: bool) -> Series:
        """Make the series; the rest has no values."""
        totals = sum(self._points, NOTHING)
        return Series(() if is_other else self._values, is_other, totals, tuple(self._points))


def _names(question: Question) -> tuple[str, ...]:
    return _DIMENSION_NAMES[: len(question.dimensions)]


def _cells(question: Question) -> CTE:
    """Sum by group and slot."""
    wanted = conditions(
        question.organization_id, question.starts_ns, question.ends_ns, question.filter
    )
    dimensions: list[ColumnElement[Any]] = [
        _column(dimension, question.tag).label(name)
        for name, dimension in zip(_names(question), question.dimensions, strict=True)
    ]
    slot = _slot(question.calendar).label("slot")
    picked = select(*dimensions, slot, *parts()).where(*wanted).cte("picked")
    keys = [picked.c[name] for name in (*_names(question), "slot")]
    return select(*keys, *sums(picked)).group_by(*keys).cte("cells")


def _ranked(question: Question, cells: CTE) -> CTE:
    """Give each cell the place of its group among all groups."""
    values = [cells.c[name] for name in _names(question)]

    weighed = select(
        *cells.c,
        total(cells, "cost_high", values).label("group_cost_high"),
        total(cells, "cost_low", values).label("group_cost_low"),
        total(cells, "requests", values).label("group_requests"),
    ).cte("weighed")
    order: list[ColumnElement[Any]] = [
        each.desc()
        for each in (
            *by_cost(weighed.c.group_cost_high, weighed.c.group_cost_low),
            weighed.c.group_requests,
        )
    ]
    for name in _names(question):
        order += _absent_last(weighed.c[name])
    place = func.dense_rank().over(order_by=order).label("group_place")
    return select(*(weighed.c[each.name] for each in cells.c), place).cte("ranked")


def _absent_last(value: ColumnElement[Any]) -> list[ColumnElement[Any]]:
    is_text = isinstance(value.type, String)
    return [case((value.is_(None), 1), else_=0), ByteOrder(value) if is_text else value]


def _folded(question: Question, ranked: CTE) -> CTE:
    """Make one group, without values, of all that come after the first `top`."""
    is_shown = ranked.c.group_place <= question.top
    place = case((is_shown, ranked.c.group_place), else_=question.top + 1).label("place")
    values = [case((is_shown, ranked.c[name])).label(name) for name in _names(question)]
    left_out = {"group_place", *_names(question)}
    rest = [each for each in ranked.c if each.name not in left_out]
    return select(place, *values, *rest).cte("folded")


def _column(dimension: Dimension, tag: str | None) -> SQLColumnExpression[Any]:
    return tag_value(tag or "") if dimension is Dimension.TAG else _COLUMNS[dimension]


def _slot(calendar: Calendar) -> ColumnElement[int]:
    zero = _zero(calendar)
    return (DecisionRow.admitted_at_ns - zero) // literal(calendar.slot_ns, BigInteger())


def _zero(calendar: Calendar) -> ColumnElement[int]:
    *before, last = calendar.stretches
    latest = literal(last.zero_ns, BigInteger())
    whens = [
        (
            DecisionRow.admitted_at_ns < literal(each.ends_ns, BigInteger()),
            literal(each.zero_ns, BigInteger()),
        )
        for each in before
    ]
    return case(*whens, else_=latest) if whens else latest
