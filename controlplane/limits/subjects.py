"""What a limit or a rule is about: a scope that exists, and to whom it belongs."""

from __future__ import annotations

from dataclasses import dataclass, field
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from controlplane.authz import Target
from controlplane.keys.models import VirtualKey
from controlplane.limits.labels import each_id, label_id, member_and_team, member_in_team_label
from controlplane.limits.models import LABEL_KINDS, LimitFields, ScopeKind
from controlplane.pools.models import Pool
from controlplane.scope import get_owned, not_found
from controlplane.tenancy.models import Member, Team


@dataclass(frozen=True, slots=True)
class Scope:
    """Whose use is counted; `label` names what has no row, None meaning each of its kind."""

    kind: ScopeKind
    id: UUID
    label: str | None = field(default=None, compare=False)

    @property
    def is_each(self) -> bool:
        """Whether it stands for each label of its kind, with a counter for every one."""
        return self.kind in LABEL_KINDS and self.id == each_id(self.kind)


def labelled(kind: ScopeKind, label: str | None) -> Scope:
    """Name the scope of a label, or of each label of a kind."""
    scope_id = each_id(kind) if label is None else label_id(kind, label)
    return Scope(kind, scope_id, label)


def member_in_team(member_id: UUID, team_id: UUID) -> Scope:
    """Name what a member uses with the keys of a team."""
    return labelled(ScopeKind.MEMBER_IN_TEAM, member_in_team_label(member_id, team_id))


def scope_of_row(row: LimitFields) -> Scope:
    """Tell what a limit is about."""
    return Scope(row.scope_kind, row.scope_id, row.label)


async def target_of_scope(session: AsyncSession, organization_id: UUID, scope: Scope) -> Target:
    """Find to whom a scope belongs; labels and pools belong to all of the organization.

    Raises `NotFound` when the organization has no such object.
    """
    kind = scope.kind
    if kind is ScopeKind.MEMBER:
        member = await get_owned(session, Member, organization_id, scope.id, "member")
        return Target(organization_id, team_id=member.team_id, member_id=member.id)
    if kind is ScopeKind.MEMBER_IN_TEAM and scope.label is not None:
        return await _member_in_team(session, organization_id, scope.label)
    if kind is ScopeKind.KEY:
        key = await get_owned(session, VirtualKey, organization_id, scope.id, "key")
        return Target(organization_id, team_id=key.team_id, member_id=key.member_id)
    if kind is ScopeKind.TEAM:
        await get_owned(session, Team, organization_id, scope.id, "team")
        return Target(organization_id, team_id=scope.id)
    if kind is ScopeKind.POOL:
        await get_owned(session, Pool, organization_id, scope.id, "pool")
    elif kind not in LABEL_KINDS and scope != Scope(ScopeKind.ORGANIZATION, organization_id):
        raise not_found(kind.value)
    return Target(organization_id)


async def _member_in_team(session: AsyncSession, organization_id: UUID, label: str) -> Target:
    member_id, team_id = member_and_team(label)
    await get_owned(session, Member, organization_id, member_id, "member")
    await get_owned(session, Team, organization_id, team_id, "team")
    return Target(organization_id, team_id=team_id, member_id=member_id)
