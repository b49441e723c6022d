"""Reads of model rules."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from sqlalchemy import Select
from sqlalchemy.ext.asyncio import AsyncSession

from controlplane.authz import Caller
from controlplane.limits.queries import visible_scopes
from controlplane.limits.subjects import Scope
from controlplane.policies.models import Rule as ModelRule
from controlplane.scope import owned


async def rule_of(session: AsyncSession, organization_id: UUID, scope: Scope) -> ModelRule | None:
    """Find the model rule of a scope; its list may be null, which allows all models."""
    return await session.scalar(
        owned(ModelRule, organization_id).where(
            ModelRule.scope_kind == scope.kind, ModelRule.scope_id == scope.id
        )
    )


async def rules_of(
    session: AsyncSession, organization_id: UUID, scopes: Sequence[Scope]
) -> list[ModelRule]:
    """Load the model rules of many scopes; their lists may be null."""
    # Not a condition for each: SQLite nests them, and refuses more than a thousand.
    query = owned(ModelRule, organization_id).where(
        ModelRule.scope_id.in_({each.id for each in scopes})
    )
    found, wanted = await session.scalars(query), set(scopes)
    return [row for row in found if Scope(row.scope_kind, row.scope_id) in wanted]


def visible_rules(caller: Caller, organization_id: UUID) -> Select[ModelRule]:
    """Select the model rules in force whose scope a caller may see."""
    columns = (ModelRule.scope_kind, ModelRule.scope_id)
    return owned(ModelRule, organization_id).where(
        ModelRule.allow.is_not(None), visible_scopes(caller, organization_id, columns)
    )
