"""Keyset connections: pages of rows by id, newest first."""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar
from uuid import UUID

import strawberry
from sqlalchemy import Select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import InstrumentedAttribute

from controlplane.api.fields import resolved
from controlplane.errors import InvalidInput

FIRST_DEFAULT = 50
FIRST_MAX = 100
# The ordering is part of the cursor: one of another list must not pass for one of this.
_ORDER = b"id-desc:"

T = TypeVar("T")
R = TypeVar("R")


@strawberry.type(description="Where a page begins and ends.")
class PageInfo:
    """Where a page begins and ends, and whether there is more."""

    has_next_page: bool = strawberry.field(description="Whether there is more after this page.")
    has_previous_page: bool = strawberry.field(description="Whether a page came before this one.")
    start_cursor: str | None = strawberry.field(description="Cursor of the first edge.")
    end_cursor: str | None = strawberry.field(description="Pass as `after` for the next page.")


@strawberry.type(description="One object in a list.")
class Edge(Generic[T]):
    """One object in a list."""

    cursor: str = strawberry.field(description="The place of this object in the list.")
    node: T = strawberry.field(description="The object.")


@strawberry.type(description="One page of a list.")
class Connection(Generic[T]):
    """One page of a list."""

    edges: list[Edge[T]] = strawberry.field(description="The objects with their places.")
    page_info: PageInfo = strawberry.field(description="Where this page begins and ends.")

    @resolved("The objects alone.")
    def nodes(self) -> list[T]:
        """List the objects alone."""
        return [edge.node for edge in self.edges]


def checked_first(first: int) -> int:
    """Accept a page size.

    Raises `InvalidInput`.
    """
    if not 1 <= first <= FIRST_MAX:
        raise InvalidInput(f"Must be from 1 to {FIRST_MAX}.", field=("first",))
    return first


def connect(items: Sequence[tuple[str, T]], *, has_next: bool, has_previous: bool) -> Connection[T]:
    """Make a page of objects with their cursors."""
    return Connection(
        edges=[Edge(cursor=cursor, node=node) for cursor, node in items],
        page_info=PageInfo(
            has_next_page=has_next,
            has_previous_page=has_previous,
            start_cursor=items[0][0] if items else None,
            end_cursor=items[-1][0] if items else None,
        ),
    )


async def page_by_id(
    session: AsyncSession,
    query: Select[R],
    column: InstrumentedAttribute[UUID],
    *,
    first: int,
    after: str | None,
) -> tuple[list[R], bool]:
    """Read up to `first` rows after a cursor, newest first, and whether there are more.

    Raises `InvalidInput` for a page size or cursor that cannot be used.
    """
    if after is not None:
        query = query.where(column < read_cursor(after))
    rows: list[R] = list(
        await session.scalars(query.order_by(column.desc()).limit(checked_first(first) + 1))
    )
    return rows[:first], len(rows) > first


def connection_of(
    rows: Sequence[R],
    make: Callable[[R], T],
    key: Callable[[R], UUID],
    *,
    has_next: bool,
    after: str | None,
) -> Connection[T]:
    """Make a page of rows read by `page_by_id`."""
    items = [(cursor_of(key(row)), make(row)) for row in rows]
    return connect(items, has_next=has_next, has_previous=after is not None)


def cursor_of(row_id: UUID) -> str:
    """Name the place of a row in a list ordered by id."""
    return urlsafe_b64encode(_ORDER + row_id.bytes).decode()


def read_cursor(text: str) -> UUID:
    """Read the place a cursor names.

    Raises `InvalidInput` when it is not one of this ordering.
    """
    try:
        raw = urlsafe_b64decode(text)
    except ValueError:
        raw = b""
    if len(raw) != len(_ORDER) + 16 or not raw.startswith(_ORDER):
        raise InvalidInput("This is no cursor of this list.", field=("after",))
    return UUID(bytes=raw[len(_ORDER) :])
