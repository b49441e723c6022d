"""Reads of rules."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from sqlalchemy import Select
from sqlalchemy.ext.asyncio import AsyncSession

from controlplane.authz import Caller
from controlplane.limits.queries import visible_scopes
from controlplane.limits.subjects import Scope
from controlplane.policies.models import Rule
from controlplane.scope import owned


async def rule_of(session: AsyncSession, organization_id: UUID, scope: Scope) -> Rule | None:
    """Find the rule of a scope; it may say nothing."""
    return await session.scalar(
        owned(Rule, organization_id).where(Rule.scope_kind == scope.kind, Rule.scope_id == scope.id)
    )


async def rules_of(
    session: AsyncSession, organization_id: UUID, scopes: Sequence[Scope]
) -> list[Rule]:
    """Load the rules of many scopes; they may say nothing."""
    # Not a condition for each: SQLite nests them, and refuses more than a thousand.
    query = owned(Rule, organization_id).where(Rule.scope_id.in_({each.id for each in scopes}))
    found, wanted = await session.scalars(query), set(scopes)
    return [row for row in found if Scope(row.scope_kind, row.scope_id) in wanted]


def visible_rules(caller: Caller, organization_id: UUID) -> Select[Rule]:
    """Select the rules whose scope a caller may see."""
    columns = (Rule.scope_kind, Rule.scope_id)
    return owned(Rule, organization_id).where(visible_scopes(caller, organization_id, columns))
