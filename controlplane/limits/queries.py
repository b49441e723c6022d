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
from controlplane.limits.models import Limit, LimitKind, Resource, ScopeKind
from controlplane.limits.subjects import Scope
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


@dataclass(frozen=True, slots=True)
class LimitPair:
    """Two limits that people set together: RPM and TPM, or a breaker's minute and hour.

    `version` grows with each change of either, since rows are archived and never deleted.
    """

    scope: Scope
    first: Limit | None
    second: Limit | None
    version: int

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
    session: AsyncSession, organization_id: UUID, scope: Scope, kind: LimitKind
) -> LimitPair:
    """Load the rates of a key, or the thresholds a scope has set for its own breaker."""
    rows = await session.scalars(
        _of_scope(organization_id, scope, kind).where(Limit.slot.in_(PAIR_SLOTS[kind]))
    )
    return pair_from(scope, kind, rows)


def pair_from(scope: Scope, kind: LimitKind, rows: Iterable[Limit]) -> LimitPair:
    """Make a pair of the rows of one scope and kind, archived ones included."""
    by_slot = {row.slot: row for row in rows}
    live = {slot: row for slot, row in by_slot.items() if row.archived_at is None}
    first, second = PAIR_SLOTS[kind]
    version = sum(row.version for row in by_slot.values())
    return LimitPair(scope, live.get(first), live.get(second), version)


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
    return [row for row in found if Scope(row.scope_kind, row.scope_id) in wanted]


def live_limits(organization_id: UUID) -> Select[Limit]:
    """Select the limits of an organization that are in force."""
    return owned(Limit, organization_id).where(Limit.archived_at.is_(None))


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
        by_scope.setdefault(Scope(row.scope_kind, row.scope_id), []).append(row)
    return [pair_from(scope, kind, by_scope.get(scope, [])) for scope in scopes]


def scopes_with(caller: Caller, organization_id: UUID, kind: LimitKind) -> Select[ScopeKind, UUID]:
    """Select the scopes that have a limit of a kind in force and that a caller may see."""
    return (
        select(Limit.scope_kind, Limit.scope_id)
        .where(
            Limit.organization_id == organization_id,
            Limit.kind == kind,
            Limit.archived_at.is_(None),
            visible_scopes(caller, organization_id, (Limit.scope_kind, Limit.scope_id)),
        )
        .distinct()
    )
