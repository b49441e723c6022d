"""Strict allotment: what a team's budget is shared out to never adds up to more than it.

Compared are budgets of one slot, that is of the same window and the same choice of requests. A
team without a budget there has no ceiling there.
"""

from __future__ import annotations

from collections.abc import Iterable
from uuid import UUID

from sqlalchemy import Select, and_, or_

from controlplane.context import Work
from controlplane.errors import CeilingExceeded
from controlplane.keys.models import KeyState, VirtualKey
from controlplane.limits.models import Limit, LimitKind, Mode, ScopeKind
from controlplane.limits.queries import live_limits
from controlplane.money import format_money
from controlplane.scope import owned, subject_of
from controlplane.tenancy.models import Allotment, Member, Team


async def check_allotment(
    work: Work, organization_id: UUID, team_id: UUID | None, *, field: Iterable[str] = ("limit",)
) -> None:
    """Refuse what was flushed if a strict team's budgets are shared out to more than there is.

    Locks the team, so that of two who share out at once the second sees what the first did.

    Raises `CeilingExceeded`.
    """
    if team_id is None:
        return
    locked = owned(Team, organization_id).where(Team.id == team_id).with_for_update()
    allot = await work.session.scalar(locked.with_only_columns(Team.allot))
    if allot is not Allotment.STRICT:
        return
    for ceiling in await ceilings_of(work, organization_id, team_id):
        attempted = await _shared_out(work, organization_id, team_id, ceiling.slot)
        if attempted > ceiling.cap:
            raise ceiling_fault(ceiling, attempted, field)


async def ceilings_of(
    work: Work, organization_id: UUID, team_id: UUID, slot: str | None = None
) -> list[Limit]:
    """Load the budgets of a team that count, all or the one in a slot."""
    query = _counting(organization_id).where(
        Limit.scope_kind == ScopeKind.TEAM, Limit.scope_id == team_id
    )
    if slot is not None:
        query = query.where(Limit.slot == slot)
    return list(await work.session.scalars(query.order_by(Limit.id)))


def ceiling_fault(ceiling: Limit, attempted: int, field: Iterable[str]) -> CeilingExceeded:
    """Say that a team's budget is not that large."""
    return CeilingExceeded(
        f"The team's budget is {format_money(ceiling.cap)}; this would make "
        f"{format_money(attempted)} of it.",
        limit_nanos=ceiling.cap,
        attempted_nanos=attempted,
        ceiling=subject_of(ceiling),
        field=tuple(field),
    )


async def _shared_out(work: Work, organization_id: UUID, team_id: UUID, slot: str) -> int:
    """Add up the caps of the team's members, members in it and keys; revoked keys spend no more."""
    members = owned(Member, organization_id).where(Member.team_id == team_id)
    keys = owned(VirtualKey, organization_id).where(
        VirtualKey.team_id == team_id, VirtualKey.state != KeyState.REVOKED
    )
    is_child = or_(
        and_(
            Limit.scope_kind == ScopeKind.MEMBER,
            Limit.scope_id.in_(members.with_only_columns(Member.id)),
        ),
        and_(
            Limit.scope_kind == ScopeKind.KEY,
            Limit.scope_id.in_(keys.with_only_columns(VirtualKey.id)),
        ),
        and_(
            Limit.scope_kind == ScopeKind.MEMBER_IN_TEAM,
            Limit.label.endswith(f"/{team_id}"),
        ),
    )
    inside = _counting(organization_id).where(Limit.slot == slot, is_child)
    # Not SUM: on SQLite it fails beyond 64 bits, and each cap may be that large.
    return sum(await work.session.scalars(inside.with_only_columns(Limit.cap)))


def _counting(organization_id: UUID) -> Select[Limit]:
    return live_limits(organization_id).where(
        Limit.kind == LimitKind.BUDGET, Limit.mode != Mode.SHADOW
    )
