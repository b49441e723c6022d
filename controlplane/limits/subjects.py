"""What a limit or a rule is about: a scope that exists, and to whom it belongs."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from controlplane.authz import Target
from controlplane.keys.models import VirtualKey
from controlplane.limits.models import ScopeKind
from controlplane.scope import get_owned, not_found
from controlplane.tenancy.models import Member, Team


@dataclass(frozen=True, slots=True)
class Scope:
    """One organization, team, member or key."""

    kind: ScopeKind
    id: UUID


async def target_of_scope(session: AsyncSession, organization_id: UUID, scope: Scope) -> Target:
    """Find to whom a scope belongs.

    Raises `NotFound` when the organization has no such object.
    """
    if scope.kind is ScopeKind.ORGANIZATION:
        if scope.id != organization_id:
            raise not_found("organization")
        return Target(organization_id)
    if scope.kind is ScopeKind.TEAM:
        await get_owned(session, Team, organization_id, scope.id, "team")
        return Target(organization_id, team_id=scope.id)
    if scope.kind is ScopeKind.MEMBER:
        member = await get_owned(session, Member, organization_id, scope.id, "member")
        return Target(organization_id, team_id=member.team_id, member_id=member.id)
    key = await get_owned(session, VirtualKey, organization_id, scope.id, "key")
    return Target(organization_id, team_id=key.team_id, member_id=key.member_id)
