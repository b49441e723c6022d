"""Reads of tenant budgets."""

from __future__ import annotations

from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from controlplane.scope import owned
from controlplane.tenant_budgets.models import TenantBudget


async def budget_of(session: AsyncSession, organization_id: UUID) -> TenantBudget | None:
    """Find the tenant budget in force of an organization."""
    row = await any_budget_of(session, organization_id)
    return None if row is None or row.archived_at is not None else row


async def any_budget_of(session: AsyncSession, organization_id: UUID) -> TenantBudget | None:
    """Find the tenant budget of an organization, in force or archived."""
    return await session.scalar(owned(TenantBudget, organization_id))
