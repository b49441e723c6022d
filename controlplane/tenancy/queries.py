"""Reads of organizations, teams and members."""

from __future__ import annotations

from uuid import UUID

from sqlalchemy import ColumnElement, Select, and_, false, or_, select, true
from sqlalchemy.ext.asyncio import AsyncSession

from controlplane.authz import Action, Caller, Reach, Role
from controlplane.errors import NotFound
from controlplane.scope import get_owned, owned, within_reach
from controlplane.tenancy.models import CostCenter, Member, Organization, Team, User


async def organization_by_id(session: AsyncSession, organization_id: UUID) -> Organization:
    """Load an organization.

    Raises `NotFound`.
    """
    row = await session.get(Organization, organization_id)
    if row is None:
        raise NotFound("There is no such organization.")
    return row


async def locked_organization(session: AsyncSession, organization_id: UUID) -> Organization:
    """Load an organization as it is now, and keep others from changing it until the commit.

    Raises `NotFound`.
    """
    row = await session.get(
        Organization, organization_id, with_for_update=True, populate_existing=True
    )
    if row is None:
        raise NotFound("There is no such organization.")
    return row


async def organization_by_slug(session: AsyncSession, slug: str) -> Organization | None:
    """Find an organization by the name in its address."""
    return await session.scalar(select(Organization).where(Organization.slug == slug))


async def user_by_email(session: AsyncSession, email: str) -> User | None:
    """Find a user by e-mail address, which is kept in lower case."""
    return await session.scalar(select(User).where(User.email == email.strip().lower()))


async def team_by_id(session: AsyncSession, organization_id: UUID, team_id: UUID) -> Team:
    """Load a team of an organization.

    Raises `NotFound`.
    """
    return await get_owned(session, Team, organization_id, team_id, "team")


async def member_by_id(session: AsyncSession, organization_id: UUID, member_id: UUID) -> Member:
    """Load a member of an organization.

    Raises `NotFound`.
    """
    return await get_owned(session, Member, organization_id, member_id, "member")


async def team_by_slug(session: AsyncSession, organization_id: UUID, slug: str) -> Team | None:
    """Find a team of an organization by the name in its address."""
    return await session.scalar(owned(Team, organization_id).where(Team.slug == slug))


async def cost_center_by_id(
    session: AsyncSession, organization_id: UUID, cost_center_id: UUID
) -> CostCenter:
    """Load a cost center of an organization, archived or not.

    Raises `NotFound`.
    """
    return await get_owned(session, CostCenter, organization_id, cost_center_id, "cost center")


async def organization_ids(session: AsyncSession) -> list[UUID]:
    """List every organization of the installation, in the order they were made."""
    return list(await session.scalars(select(Organization.id).order_by(Organization.id)))


def visible_teams(caller: Caller, organization_id: UUID) -> Select[Team]:
    """Select the teams that a caller may see."""
    return owned(Team, organization_id).where(
        within_reach(caller, Action.STRUCTURE_READ, organization_id, team=Team.id, member=None)
    )


def visible_cost_centers(caller: Caller, organization_id: UUID) -> Select[CostCenter]:
    """Select the cost centers of an organization: all for everybody who may see anything in it."""
    is_inside = caller.reach(Action.STRUCTURE_READ, organization_id) is not Reach.NONE
    return owned(CostCenter, organization_id).where(true() if is_inside else false())


def visible_members(caller: Caller, organization_id: UUID) -> Select[Member]:
    """Select the members that a caller may see."""
    return owned(Member, organization_id).where(
        within_reach(
            caller,
            Action.STRUCTURE_READ,
            organization_id,
            team=Member.team_id,
            member=Member.id,
        )
    )


def members_matching(role: Role | None, text: str | None) -> ColumnElement[bool]:
    """Write as a condition that a member has a role, and a text in its address or name."""
    conditions: list[ColumnElement[bool]] = []
    if role is not None:
        conditions.append(Member.role == role)
    if text is not None:
        users = select(User.id).where(
            or_(
                User.email.icontains(text, autoescape=True),
                User.name.icontains(text, autoescape=True),
            )
        )
        conditions.append(Member.user_id.in_(users))
    return and_(true(), *conditions)
