"""Keyset connections: pages of rows, newest first or in an order that was asked for."""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any, Generic, TypeVar
from uuid import UUID

import msgspec
import strawberry
from sqlalchemy import ColumnElement, Select, SQLColumnExpression, and_, or_
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import InstrumentedAttribute

from controlplane.api.fields import resolved
from controlplane.api.loaders import children
from controlplane.api.request import Info
from controlplane.errors import InvalidInput

FIRST_DEFAULT = 50
FIRST_MAX = 100
# The ordering is part of the cursor: one of another list must not pass for one of this.
_ORDER = b"id-desc:"

T = TypeVar("T")
R = TypeVar("R", bound=Any)

# Arguments of a list.
First = Annotated[
    int, strawberry.argument(description=f"How many to show at most, 1 to {FIRST_MAX}.")
]
After = Annotated[
    str | None,
    strawberry.argument(
        description="Go on after this place, an `endCursor` or a `cursor`; null: from the start."
    ),
]


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


@dataclass(frozen=True, slots=True)
class Ordering(Generic[R]):
    """An order of rows by an expression, nulls last, and by id; its name stands in its cursors.

    `value` is text or an instant.
    """

    name: str
    value: SQLColumnExpression[Any]
    row_id: InstrumentedAttribute[UUID]
    is_instant: bool = False

    def cursor(self, row_id: UUID, value: str | datetime | None) -> str:
        """Name the place of a row."""
        text = value.isoformat() if isinstance(value, datetime) else value
        return urlsafe_b64encode(msgspec.json.encode([self.name, row_id, text])).decode()

    def after(self, cursor: str) -> ColumnElement[bool]:
        """Write as a condition that a row comes after a place.

        Raises `InvalidInput` when the cursor is not one of this ordering.
        """
        try:
            name, row_id, text = msgspec.json.decode(
                urlsafe_b64decode(cursor), type=tuple[str, UUID, str | None]
            )
            value = self._value(text)
        except (ValueError, OverflowError, msgspec.DecodeError):
            name = ""
        if name != self.name:
            raise _no_cursor()
        is_later = self.row_id > row_id
        if value is None:
            return and_(self.value.is_(None), is_later)
        is_beyond = or_(self.value > value, self.value.is_(None))
        return or_(is_beyond, and_(self.value == value, is_later))

    def _value(self, text: str | None) -> str | datetime | None:
        """Read what a place is by; raises `ValueError` and `OverflowError` for what no row has."""
        if text is None:
            return None
        if not self.is_instant:
            if "\0" in text:
                raise ValueError("no database keeps NUL in a text")
            return text
        found = datetime.fromisoformat(text)
        if found.tzinfo is None:
            raise ValueError("an instant needs a time zone")
        return found.astimezone(UTC)


async def page_in_order(
    session: AsyncSession,
    query: Select[R],
    ordering: Ordering[R],
    *,
    first: int,
    after: str | None,
) -> tuple[list[tuple[str, R]], bool]:
    """Read up to `first` rows with their cursors in an order, and whether there are more.

    Raises `InvalidInput` for a page size or cursor that cannot be used.
    """
    if after is not None:
        query = query.where(ordering.after(after))
    order = (ordering.value.is_(None), ordering.value, ordering.row_id)
    paged = query.order_by(*order).limit(checked_first(first) + 1)
    found = (await session.execute(paged.add_columns(ordering.value, ordering.row_id))).all()
    items = [(ordering.cursor(row_id, value), row) for row, value, row_id in found[:first]]
    return items, len(found) > first


async def page_of_children(
    info: Info,
    list_name: tuple[str, UUID],
    query: Select[R],
    row_id: InstrumentedAttribute[UUID],
    parent_id: InstrumentedAttribute[Any],
    of: UUID,
    *,
    first: int,
    after: str | None,
) -> tuple[list[R], bool]:
    """Read the newest `first` children of a parent; all parents of an answer in one query.

    `query` must be the same wherever `list_name`, a field and an organization, is. Raises
    `InvalidInput`.
    """
    checked_first(first)
    before_id = None if after is None else read_cursor(after)
    context = info.context
    name = (list_name, first, before_id)
    loader = context.loaders.children.get(name)
    if loader is None:
        loader = context.loaders.children[name] = children(
            context.backend.database, query, row_id, parent_id, first=first, before_id=before_id
        )
    rows = await loader.load(of)
    return rows[:first], len(rows) > first


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
        raise _no_cursor()
    return UUID(bytes=raw[len(_ORDER) :])


def _no_cursor() -> InvalidInput:
    return InvalidInput("This is no cursor of this list and its order.", field=("after",))
