"""Reads of limits."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import ColumnElement, Select, SQLColumnExpression, and_, or_, select, true
from sqlalchemy.ext.asyncio import AsyncSession

from controlplane.authz import Action, Caller, Reach
from controlplane.keys.models import VirtualKey
from controlplane.keys.queries import visible_keys
from controlplane.limits.models import (
    InstallationLimit,
    Limit,
    LimitKind,
    Resource,
    ScopeKind,
)
from controlplane.limits.subjects import Scope, scope_of_row
from controlplane.limits.where import Where
from controlplane.limits.windows import Rolling, slot_of
from controlplane.scope import not_found, owned
from controlplane.tenancy.models import Member, Team
from controlplane.tenancy.queries import visible_members, visible_teams

RPM_SLOT = slot_of(None, Resource.REQUESTS, Rolling(60))
TPM_SLOT = slot_of(None, Resource.TOKENS, Rolling(60))
MINUTE_SLOT = slot_of(None, Resource.SPEND, Rolling(60))
HOUR_SLOT = slot_of(None, Resource.SPEND, Rolling(3600))

ScopeColumns = tuple[SQLColumnExpression[ScopeKind], SQLColumnExpression[UUID]]

PAIR_SLOTS = {LimitKind.RATE: (RPM_SLOT, TPM_SLOT), LimitKind.BREAKER: (MINUTE_SLOT, HOUR_SLOT)}
PAIR_RESOURCES = {
    LimitKind.RATE: ((Resource.REQUESTS, 60), (Resource.TOKENS, 60)),
    LimitKind.BREAKER: ((Resource.SPEND, 60), (Resource.SPEND, 3600)),
}


@dataclass(frozen=True, slots=True)
class LimitPair:
    """Two limits that people set together: RPM and TPM, or a breaker's minute and hour.

    `version` grows with each change of either, since rows are archived and never deleted.
    """

    scope: Scope
    first: Limit | None
    second: Limit | None
    version: int
    where: Where | None = None

    @property
    def caps(self) -> tuple[int | None, int | None]:
        """Both caps; None where there is no limit."""
        return (_cap_of(self.first), _cap_of(self.second))


async def limit_in_slot(
    session: AsyncSession, organization_id: UUID, scope: Scope, kind: LimitKind, slot: str
) -> Limit | None:
    """Find the limit of a scope in a slot, archived or not."""
    return await session.scalar(_of_scope(organization_id, scope, kind).where(Limit.slot == slot))


async def pair_of(
    session: AsyncSession,
    organization_id: UUID,
    scope: Scope,
    kind: LimitKind,
    where: Where | None = None,
) -> LimitPair:
    """Load the rates of a scope, or the thresholds it has set for its own breaker."""
    slots = pair_slots(kind, where)
    rows = await session.scalars(
        _of_scope(organization_id, scope, kind).where(Limit.slot.in_(slots))
    )
    return pair_from(scope, kind, rows, where)


def pair_slots(kind: LimitKind, where: Where | None) -> tuple[str, str]:
    """Spell the slots of two limits that are set together."""
    if where is None:
        return PAIR_SLOTS[kind]
    first, second = PAIR_RESOURCES[kind]
    return (
        slot_of(where, first[0], Rolling(first[1])),
        slot_of(where, second[0], Rolling(second[1])),
    )


def pair_from(
    scope: Scope, kind: LimitKind, rows: Iterable[Limit], where: Where | None = None
) -> LimitPair:
    """Make a pair of the rows of one scope and kind, archived ones included."""
    first, second = pair_slots(kind, where)
    by_slot = {row.slot: row for row in rows if row.slot in {first, second}}
    live = {slot: row for slot, row in by_slot.items() if row.archived_at is None}
    version = sum(row.version for row in by_slot.values())
    return LimitPair(scope, live.get(first), live.get(second), version, where)


async def pairs_named(
    session: AsyncSession, organization_id: UUID, pair_ids: Sequence[UUID]
) -> dict[UUID, LimitPair]:
    """Load rates by the ids of their pairs; one that was never set is not among them."""
    rows = await session.scalars(
        owned(Limit, organization_id).where(
            Limit.kind == LimitKind.RATE, Limit.pair_id.in_(set(pair_ids))
        )
    )
    by_name: dict[UUID, list[Limit]] = {}
    for row in rows:
        if row.pair_id is not None:
            by_name.setdefault(row.pair_id, []).append(row)
    return {
        name: pair_from(scope_of_row(found[0]), LimitKind.RATE, found, found[0].where)
        for name, found in by_name.items()
    }


async def live_limit(
    session: AsyncSession, organization_id: UUID, limit_id: UUID, kind: LimitKind
) -> Limit:
    """Load a limit that is in force.

    Raises `NotFound`.
    """
    row = await session.scalar(
        live_limits(organization_id).where(Limit.id == limit_id, Limit.kind == kind)
    )
    if row is None:
        raise not_found(kind.value)
    return row


async def budgets_of_scopes(
    session: AsyncSession, organization_id: UUID, scopes: Sequence[Scope]
) -> list[Limit]:
    """Load the budgets in force that some scopes have themselves."""
    # Not a condition for each: SQLite nests them, and refuses more than a thousand.
    query = live_limits(organization_id).where(
        Limit.kind == LimitKind.BUDGET, Limit.scope_id.in_({each.id for each in scopes})
    )
    found, wanted = await session.scalars(query.order_by(Limit.id)), set(scopes)
    return [row for row in found if scope_of_row(row) in wanted]


def live_limits(organization_id: UUID) -> Select[Limit]:
    """Select the limits of an organization that are in force."""
    return owned(Limit, organization_id).where(Limit.archived_at.is_(None))


def live_installation_limits() -> Select[InstallationLimit]:
    """Select the limits of the installation and of providers that are in force."""
    return select(InstallationLimit).where(InstallationLimit.archived_at.is_(None))


def _of_scope(organization_id: UUID, scope: Scope, kind: LimitKind) -> Select[Limit]:
    return owned(Limit, organization_id).where(
        Limit.scope_kind == scope.kind, Limit.scope_id == scope.id, Limit.kind == kind
    )


def _cap_of(row: Limit | None) -> int | None:
    return None if row is None else row.cap


def visible_scopes(
    caller: Caller, organization_id: UUID, columns: ScopeColumns
) -> ColumnElement[bool]:
    """Write as a condition that a caller may see the scope in these two columns."""
    reach = caller.reach(Action.STRUCTURE_READ, organization_id)
    if reach is Reach.ORGANIZATION:
        return true()
    kind, scope_id = columns
    seen = (
        (ScopeKind.TEAM, visible_teams(caller, organization_id).with_only_columns(Team.id)),
        (ScopeKind.MEMBER, visible_members(caller, organization_id).with_only_columns(Member.id)),
        (ScopeKind.KEY, visible_keys(caller, organization_id).with_only_columns(VirtualKey.id)),
    )
    return or_(*(and_(kind == each, scope_id.in_(query)) for each, query in seen))


def visible_limits(caller: Caller, organization_id: UUID) -> ColumnElement[bool]:
    """Write as a condition that a caller may see the scope of a limit."""
    seen = visible_scopes(caller, organization_id, (Limit.scope_kind, Limit.scope_id))
    membership = caller.membership
    reach = caller.reach(Action.STRUCTURE_READ, organization_id)
    if reach is Reach.ORGANIZATION or membership is None:
        return seen
    found = [Limit.label.startswith(f"{membership.member_id}/")]
    if reach is Reach.TEAM and membership.team_id is not None:
        found.append(Limit.label.endswith(f"/{membership.team_id}"))
    is_inside = and_(Limit.organization_id == organization_id, or_(*found))
    return or_(seen, and_(Limit.scope_kind == ScopeKind.MEMBER_IN_TEAM, is_inside))


async def pairs_of(
    session: AsyncSession, organization_id: UUID, scopes: Sequence[Scope], kind: LimitKind
) -> list[LimitPair]:
    """Load the pairs of many scopes in one query, in the order of the scopes."""
    rows = await session.scalars(
        owned(Limit, organization_id).where(
            Limit.kind == kind, Limit.scope_id.in_([scope.id for scope in scopes])
        )
    )
    by_scope: dict[Scope, list[Limit]] = {}
    for row in rows:
        by_scope.setdefault(scope_of_row(row), []).append(row)
    return [pair_from(scope, kind, by_scope.get(scope, [])) for scope in scopes]


def scopes_with(caller: Caller, organization_id: UUID, kind: LimitKind) -> Select[ScopeKind, UUID]:
    """Select the scopes that have a limit of a kind in force and that a caller may see."""
    return (
        select(Limit.scope_kind, Limit.scope_id)
        .where(
            Limit.organization_id == organization_id,
            Limit.kind == kind,
            Limit.archived_at.is_(None),
            visible_limits(caller, organization_id),
        )
        .distinct()
    )


def rates_in_force(caller: Caller, organization_id: UUID) -> Select[UUID | None]:
    """Select the names of the pairs of rates in force whose scope a caller may see."""
    return (
        select(Limit.pair_id)
        .where(
            Limit.organization_id == organization_id,
            Limit.kind == LimitKind.RATE,
            Limit.archived_at.is_(None),
            visible_limits(caller, organization_id),
        )
        .distinct()
    )
