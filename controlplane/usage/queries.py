"""Pages of requests, newest first."""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import BigInteger, ColumnElement, Select, Uuid, literal, select, tuple_
from sqlalchemy.ext.asyncio import AsyncSession

from controlplane.errors import InvalidInput
from controlplane.ledger.models import DecisionRow
from controlplane.usage.filters import ANY_REQUEST, RequestFilter, conditions

PAGE_ROWS_MAX = 100
# 8 bytes of admission time and 16 of the id, after a letter that names the ordering.
_CURSOR_ORDER = b"a"
_CURSOR_BYTES = 25


@dataclass(frozen=True, slots=True)
class RequestPage:
    """Some requests, newest first; `end_cursor` is where the next page goes on."""

    items: tuple[DecisionRow, ...]
    has_next: bool
    end_cursor: str | None


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
    query = page_query(
        organization_id,
        first=first,
        after=after,
        starts_ns=starts_ns,
        ends_ns=ends_ns,
        filter=filter,
    )
    rows = (await session.scalars(query)).all()
    items = tuple(rows[:first])
    return RequestPage(items, len(rows) > first, cursor(items[-1]) if items else None)


def page_query(
    organization_id: UUID,
    *,
    first: int,
    after: str | None = None,
    starts_ns: int | None = None,
    ends_ns: int | None = None,
    filter: RequestFilter = ANY_REQUEST,  # noqa: A002 - the API calls it so
) -> Select[DecisionRow]:
    """Write the query of a page, which reads one request more to tell whether there are more.

    Raises `InvalidInput` as `page_of_requests` does.
    """
    query = select(DecisionRow).where(*conditions(organization_id, starts_ns, ends_ns, filter))
    if after is not None:
        query = query.where(_older_than(*read_cursor(after)))
    query = query.order_by(DecisionRow.admitted_at_ns.desc(), DecisionRow.id.desc())
    return query.limit(first + 1)


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
        *conditions(organization_id, None, None, filter), DecisionRow.id.in_(ids)
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
