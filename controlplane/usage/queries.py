"""Pages of requests, newest first."""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    SQLColumnExpression,
    Uuid,
    func,
    literal,
    select,
    tuple_,
)
from sqlalchemy.ext.asyncio import AsyncSession

from controlplane.errors import InvalidInput
from controlplane.ledger.models import DecisionRow

PAGE_ROWS_MAX = 100
FILTER_VALUES_MAX = 100
# 8 bytes of admission time and 16 of the id, after a letter that names the ordering.
_CURSOR_ORDER = b"a"
_CURSOR_BYTES = 25


@dataclass(frozen=True, slots=True)
class RequestFilter:
    """Which requests to show; an empty tuple and None mean any."""

    models: tuple[str, ...] = ()
    providers: tuple[str, ...] = ()
    decisions: tuple[str, ...] = ()
    codes: tuple[str, ...] = ()
    http_statuses: tuple[int, ...] = ()
    key_ids: tuple[UUID, ...] = ()
    team_ids: tuple[UUID, ...] = ()
    member_ids: tuple[UUID, ...] = ()
    charge_nanos_min: int | None = None
    request_id: UUID | None = None


@dataclass(frozen=True, slots=True)
class RequestPage:
    """Some requests, newest first; `end_cursor` is where the next page goes on."""

    items: tuple[DecisionRow, ...]
    has_next: bool
    end_cursor: str | None


ANY_REQUEST = RequestFilter()


async def page_of_requests(
    session: AsyncSession,
    organization_id: UUID,
    *,
    first: int,
    after: str | None = None,
    starts_ns: int | None = None,
    ends_ns: int | None = None,
    filter: RequestFilter = ANY_REQUEST,  # noqa: A002 - the API calls it so
) -> RequestPage:
    """Read up to `first` requests admitted in [starts, ends), newest first, after a cursor.

    Raises `InvalidInput` for a page size, list or cursor out of its range.
    """
    if not 1 <= first <= PAGE_ROWS_MAX:
        raise InvalidInput(f"A page has 1 to {PAGE_ROWS_MAX} requests.", field=["first"])
    query = select(DecisionRow).where(DecisionRow.organization_id == organization_id)
    query = query.where(*_between(starts_ns, ends_ns), *_matching(filter))
    if after is not None:
        query = query.where(_older_than(*read_cursor(after)))
    query = query.order_by(DecisionRow.admitted_at_ns.desc(), DecisionRow.id.desc())
    rows = (await session.scalars(query.limit(first + 1))).all()
    items = tuple(rows[:first])
    return RequestPage(items, len(rows) > first, cursor(items[-1]) if items else None)


async def requests_by_ids(
    session: AsyncSession,
    organization_id: UUID,
    ids: Sequence[UUID],
    filter: RequestFilter = ANY_REQUEST,  # noqa: A002 - the API calls it so
) -> list[DecisionRow]:
    """Read those of some requests that a filter lets through, the oldest first.

    Raises `InvalidInput` for a list out of its range.
    """
    query = select(DecisionRow).where(
        DecisionRow.organization_id == organization_id,
        DecisionRow.id.in_(ids),
        *_matching(filter),
    )
    return list(await session.scalars(query.order_by(DecisionRow.finished_at_ns, DecisionRow.id)))


def cursor(row: DecisionRow) -> str:
    """Name the place of a request in the order of pages."""
    raw = _CURSOR_ORDER + row.admitted_at_ns.to_bytes(8, "big", signed=True) + row.id.bytes
    return urlsafe_b64encode(raw).decode().rstrip("=")


def read_cursor(text: str) -> tuple[int, UUID]:
    """Read the place a cursor names.

    Raises `InvalidInput` when it is not one of this ordering.
    """
    try:
        raw = urlsafe_b64decode(text + "==")
    except ValueError:
        raw = b""
    if len(raw) != _CURSOR_BYTES or raw[:1] != _CURSOR_ORDER:
        raise InvalidInput("This is no cursor of a list of requests.", field=["after"])
    return int.from_bytes(raw[1:9], "big", signed=True), UUID(bytes=raw[9:])


def _older_than(admitted_at_ns: int, request_id: UUID) -> ColumnElement[bool]:
    place = tuple_(literal(admitted_at_ns, BigInteger()), literal(request_id, Uuid()))
    return tuple_(DecisionRow.admitted_at_ns, DecisionRow.id) < place


def _between(starts_ns: int | None, ends_ns: int | None) -> Iterator[ColumnElement[bool]]:
    if starts_ns is not None:
        yield DecisionRow.admitted_at_ns >= starts_ns
    if ends_ns is not None:
        yield DecisionRow.admitted_at_ns < ends_ns


def _matching(wanted: RequestFilter) -> Iterator[ColumnElement[bool]]:
    # A refused request was served by no model: then the one it asked for counts.
    model = func.coalesce(DecisionRow.served_model, DecisionRow.requested_model)
    lists: tuple[tuple[str, SQLColumnExpression[Any], Sequence[Any]], ...] = (
        ("models", model, wanted.models),
        ("providers", DecisionRow.provider, wanted.providers),
        ("decisions", DecisionRow.decision, wanted.decisions),
        ("codes", DecisionRow.code, wanted.codes),
        ("http_statuses", DecisionRow.http_status, wanted.http_statuses),
        ("key_ids", DecisionRow.key_id, wanted.key_ids),
        ("team_ids", DecisionRow.team_id, wanted.team_ids),
        ("member_ids", DecisionRow.member_id, wanted.member_ids),
    )
    for name, column, values in lists:
        if len(values) > FILTER_VALUES_MAX:
            raise InvalidInput(f"At most {FILTER_VALUES_MAX} values.", field=["filter", name])
        if values:
            yield column.in_(values)
    if wanted.charge_nanos_min is not None:
        yield DecisionRow.charge_nanos >= wanted.charge_nanos_min
    if wanted.request_id is not None:
        yield DecisionRow.id == wanted.request_id
