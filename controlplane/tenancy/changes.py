"""Changes to teams and members that exist; each flushes and puts itself on record."""

from __future__ import annotations

from typing import TypedDict
from uuid import UUID

from controlplane.audit.service import facts, record
from controlplane.authz import Action, Role, Target, require
from controlplane.context import Work
from controlplane.errors import Conflict
from controlplane.inputs import checked_text
from controlplane.limits.allotment import check_allotment
from controlplane.scope import owned, subject_of
from controlplane.tenancy import queries
from controlplane.tenancy.models import NAME_LENGTH_MAX, Allotment, Member, Team
from controlplane.tenancy.service import (
    check_cost_center,
    check_team_of,
    policy_changed,
    refuse_greater_role,
)
from controlplane.versions import check_version


class TeamChanges(TypedDict, total=False):
    """What shall change of a team; what is left out stays, None takes the cost center away."""

    name: str
    cost_center_id: UUID | None
    allot: Allotment


class MemberChanges(TypedDict, total=False):
    """What shall change of a member; what is left out stays, None takes away."""

    role: Role
    team_id: UUID | None
    cost_center_id: UUID | None


async def update_team(
    work: Work,
    organization_id: UUID,
    team_id: UUID,
    changes: TeamChanges,
    *,
    expected_version: int,
) -> Team:
    """Change a team.

    Raises `InvalidInput`, `Conflict` for an archived cost center, `CeilingExceeded` when it shall
    be strict and more is shared out than it has, `StaleVersion`, `NotFound`, `NotPermitted`.
    """
    row = await queries.team_by_id(work.session, organization_id, team_id)
    target = Target(organization_id, team_id=row.id)
    require(work.caller, Action.TEAMS_WRITE, target, "team")
    check_version(row.version, expected_version, subject_of(row))
    name = checked_text(changes.get("name", row.name), "name", NAME_LENGTH_MAX)
    cost_center_id = changes.get("cost_center_id", row.cost_center_id)
    await _check_new_cost_center(work, target, row, cost_center_id)
    before = facts(row)
    allot = changes.get("allot", row.allot)
    if allot is not row.allot:
        # The operator appoints people and sets no policy.
        require(work.caller, Action.LIMITS_WRITE, target, "team")
    row.name = name
    row.cost_center_id = cost_center_id
    row.allot = allot
    if work.session.is_modified(row):
        await work.session.flush()
        await check_allotment(work, organization_id, row.id, field=("allot",))
        record(
            work,
            "team.update",
            row,
            organization_id=organization_id,
            before=before,
            after=facts(row),
        )
        # Its keys are loaded again, too: they may be booked on another cost center now.
        await policy_changed(work, organization_id)
    return row


async def update_member(
    work: Work,
    organization_id: UUID,
    member_id: UUID,
    changes: MemberChanges,
    *,
    expected_version: int,
) -> Member:
    """Change what a member is, its team or its cost center; keys stay in the team they are in.

    Raises `InvalidInput`, `Conflict` when the last admin would be gone or for an archived cost
    center, `CeilingExceeded` when its budgets are more than its new team has to share out,
    `StaleVersion`, `NotFound`, `NotPermitted`.
    """
    row = await queries.member_by_id(work.session, organization_id, member_id)
    target = Target(organization_id, team_id=row.team_id, member_id=row.id)
    require(work.caller, Action.MEMBERS_WRITE, target, "member")
    # One of less reach neither makes an admin nor touches one who happens to be in its team.
    refuse_greater_role(work, organization_id, row.role)
    check_version(row.version, expected_version, subject_of(row))
    role = changes.get("role", row.role)
    team_id = changes.get("team_id", row.team_id)
    cost_center_id = changes.get("cost_center_id", row.cost_center_id)
    refuse_greater_role(work, organization_id, role)
    await _check_new_team(work, row, role, team_id)
    await _check_new_cost_center(work, target, row, cost_center_id)
    if row.role is Role.ADMIN and role is not Role.ADMIN:
        await _check_other_admin(work, row)
    before, old_team_id = facts(row), row.team_id
    row.role, row.team_id, row.cost_center_id = role, team_id, cost_center_id
    if work.session.is_modified(row):
        await work.session.flush()
        if row.team_id != old_team_id:
            await check_allotment(work, organization_id, row.team_id, field=("teamId",))
        record(
            work,
            "member.update",
            row,
            organization_id=organization_id,
            before=before,
            after=facts(row),
        )
        # The team's breaker counts and stops it from now on, and its keys are loaded again.
        await policy_changed(work, organization_id)
    return row


async def _check_new_team(work: Work, row: Member, role: Role, team_id: UUID | None) -> None:
    await check_team_of(work, row.organization_id, role, team_id)
    if team_id is not None and team_id != row.team_id:
        new = Target(row.organization_id, team_id=team_id)
        require(work.caller, Action.MEMBERS_WRITE, new, "team")


async def _check_new_cost_center(
    work: Work, target: Target, row: Team | Member, cost_center_id: UUID | None
) -> None:
    if cost_center_id == row.cost_center_id:
        return
    # To take one away also changes what is booked where.
    require(work.caller, Action.COST_CENTERS_WRITE, target, "cost center")
    await check_cost_center(work, target, cost_center_id)


async def _check_other_admin(work: Work, row: Member) -> None:
    """Check that another admin remains; locks them, so that two cannot leave at once."""
    admins = owned(Member, row.organization_id).where(Member.role == Role.ADMIN)
    found = await work.session.scalars(admins.order_by(Member.id).with_for_update())
    if all(each.id == row.id for each in found):
        raise Conflict("The last admin stays an admin.", field=("role",))
