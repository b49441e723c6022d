"""Reads of plans."""

from __future__ import annotations

from uuid import UUID

from sqlalchemy import Select, func, select
from sqlalchemy.ext.asyncio import AsyncSession

from controlplane.plans.models import Plan
from controlplane.scope import not_found
from controlplane.tenancy.models import Organization


async def plan_by_id(session: AsyncSession, plan_id: UUID) -> Plan:
    """Load a plan, archived or not.

    Raises `NotFound`.
    """
    row = await session.get(Plan, plan_id)
    if row is None:
        raise not_found("plan")
    return row


async def plan_of(session: AsyncSession, organization: Organization) -> Plan | None:
    """Load the plan that an organization is on."""
    if organization.plan_id is None:
        return None
    return await plan_by_id(session, organization.plan_id)


async def plan_by_name(session: AsyncSession, name: str) -> Plan | None:
    """Find a plan by its name, archived or not."""
    return await session.scalar(select(Plan).where(Plan.name == name))


async def count_plans(session: AsyncSession) -> int:
    """Count all plans, archived ones too."""
    return await session.scalar(select(func.count()).select_from(Plan)) or 0


def plans(*, include_archived: bool) -> Select[Plan]:
    """Select plans."""
    query = select(Plan)
    return query if include_archived else query.where(Plan.archived_at.is_(None))


async def organizations_on(session: AsyncSession, plan_id: UUID) -> list[UUID]:
    """List the organizations that are on a plan."""
    query = select(Organization.id).where(Organization.plan_id == plan_id)
    return list(await session.scalars(query.order_by(Organization.id)))


async def currencies_on(session: AsyncSession, plan_id: UUID) -> set[str]:
    """List the currencies of the organizations that are on a plan."""
    query = select(Organization.currency).where(Organization.plan_id == plan_id).distinct()
    return set(await session.scalars(query))
