"""The one way to the rows of an organization: every query on a tenant table starts here."""

from __future__ import annotations

from typing import TypeVar
from uuid import UUID

from sqlalchemy import (
    ColumnElement,
    ForeignKey,
    Select,
    SQLColumnExpression,
    false,
    or_,
    select,
    true,
)
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Mapped, mapped_column

from controlplane.authz import Action, Caller, Reach
from controlplane.db import Row
from controlplane.errors import NotFound, Subject


class TenantRow(Row):
    """Base of every table whose rows belong to an organization."""

    __abstract__ = True

    id: Mapped[UUID] = mapped_column(primary_key=True)
    organization_id: Mapped[UUID] = mapped_column(ForeignKey("organizations.id"))


R = TypeVar("R", bound=TenantRow)


def owned(model: type[R], organization_id: UUID) -> Select[R]:
    """Select the rows of one organization; conditions are added to what is returned."""
    return select(model).where(model.organization_id == organization_id)


async def get_owned(
    session: AsyncSession, model: type[R], organization_id: UUID, row_id: UUID, noun: str
) -> R:
    """Load one row of an organization.

    Raises `NotFound` when there is none, also when the row belongs to another organization.
    """
    row = await session.scalar(owned(model, organization_id).where(model.id == row_id))
    if row is None:
        raise not_found(noun)
    return row


def subject_of(row: TenantRow) -> Subject:
    """Name a row in an error."""
    return Subject(row.__tablename__, row.organization_id, row.id)


def within_reach(
    caller: Caller,
    action: Action,
    organization_id: UUID,
    *,
    team: SQLColumnExpression[UUID | None] | None,
    member: SQLColumnExpression[UUID | None] | None,
) -> ColumnElement[bool]:
    """Write `authz.may` as a condition on the columns that say to whom a row belongs."""
    reach = caller.reach(action, organization_id)
    if reach is Reach.ORGANIZATION:
        return true()
    membership = caller.membership
    if reach is Reach.NONE or membership is None:
        return false()
    found: list[ColumnElement[bool]] = []
    if member is not None:
        found.append(member == membership.member_id)
    if team is not None and reach is Reach.TEAM and membership.team_id is not None:
        found.append(team == membership.team_id)
    return or_(false(), *found)


def not_found(noun: str) -> NotFound:
    """Make the one answer for what does not exist and what the caller may not see."""
    return NotFound(f"There is no such {noun}.")
