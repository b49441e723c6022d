"""Changes to organizations, teams, users and members; each flushes and puts itself on record."""

from __future__ import annotations

import re
from collections.abc import Sequence
from uuid import UUID

from sqlalchemy import ColumnElement, Update, update

from controlplane.audit.service import facts, record
from controlplane.authz import Action, Reach, Role, Target, require
from controlplane.context import Work
from controlplane.errors import Conflict, InvalidInput, NotPermitted
from controlplane.events import OrganizationChanged
from controlplane.inputs import checked_currency, checked_slug, checked_text, checked_time_zone
from controlplane.keys.idempotency import first_result, remember_result
from controlplane.scope import owned
from controlplane.tenancy import queries
from controlplane.tenancy.models import (
    EMAIL_LENGTH_MAX,
    NAME_LENGTH_MAX,
    Allotment,
    Member,
    Organization,
    OrganizationState,
    Team,
    User,
)

# SQLite binds at most 32,766 parameters.
IDS_PER_UPDATE_MAX = 10_000

_EMAIL = re.compile(r"[^\s@<>\"]{1,64}@[^\s@<>\"]+\.[^\s@<>\".]+")
# What a team's admin may make of another: never more than itself.
_ROLES_OF_A_TEAM = frozenset({Role.MEMBER, Role.TEAM_ADMIN})


async def create_organization(
    work: Work, *, slug: str, name: str, currency: str = "USD", time_zone: str = "UTC"
) -> Organization:
    """Create an organization; for the operator and the system.

    Raises `InvalidInput`, `Conflict` when the slug is taken, `NotPermitted`.
    """
    if work.caller.user_id is not None and not work.caller.operator:
        raise NotPermitted("Only the operator creates organizations.")
    row = Organization(
        id=work.new_id(),
        slug=checked_slug(slug),
        name=checked_text(name, "name", NAME_LENGTH_MAX),
        currency=checked_currency(currency),
        time_zone=checked_time_zone(time_zone),
        state=OrganizationState.ACTIVE,
        epoch=1,
        created_at=work.now,
    )
    if await queries.organization_by_slug(work.session, slug) is not None:
        raise Conflict(f"The slug {slug} is taken.", field=("slug",))
    work.session.add(row)
    await work.session.flush()
    record(work, "organization.create", row, organization_id=row.id, after=facts(row))
    work.announce(OrganizationChanged(row.id))
    return row


async def create_team(
    work: Work,
    organization_id: UUID,
    *,
    name: str,
    slug: str | None = None,
    cost_center_id: UUID | None = None,
    idempotency_key: str | None = None,
) -> Team:
    """Create a team; without a slug one is made from its name.

    The same call with the same idempotency key returns the first team.

    Raises `InvalidInput`, `Conflict` when the slug is taken, `IdempotencyMismatch`, `NotFound`,
    `NotPermitted`.
    """
    target = Target(organization_id)
    require(work.caller, Action.TEAMS_WRITE, target, "organization")
    await queries.organization_by_id(work.session, organization_id)
    request = {"operation": "team.create", "name": name, "slug": slug, "cost": cost_center_id}
    earlier_id = await first_result(work, organization_id, idempotency_key, request)
    if earlier_id is not None:
        return await queries.team_by_id(work.session, organization_id, earlier_id)
    await check_cost_center(work, target, cost_center_id)
    checked_name = checked_text(name, "name", NAME_LENGTH_MAX)
    checked = checked_slug(slug if slug is not None else _slug_from(checked_name))
    if await queries.team_by_slug(work.session, organization_id, checked) is not None:
        raise Conflict(f"The slug {checked} is taken.", field=("slug",))
    row = Team(
        id=work.new_id(),
        organization_id=organization_id,
        slug=checked,
        name=checked_name,
        cost_center_id=cost_center_id,
        allot=Allotment.FREE,
        created_at=work.now,
    )
    work.session.add(row)
    await work.session.flush()
    await remember_result(work, organization_id, idempotency_key, request, row.id)
    record(work, "team.create", row, organization_id=organization_id, after=facts(row))
    await policy_changed(work, organization_id)
    return row


async def create_member(
    work: Work,
    organization_id: UUID,
    *,
    email: str,
    role: Role = Role.MEMBER,
    team_id: UUID | None = None,
    cost_center_id: UUID | None = None,
    name: str | None = None,
) -> Member:
    """Make the user with this address, known or new, a member of an organization.

    Raises `InvalidInput`, `Conflict` for one who is a member already, `NotFound`, `NotPermitted`.
    """
    target = Target(organization_id, team_id=team_id)
    require(work.caller, Action.MEMBERS_WRITE, target, "team" if team_id else "organization")
    refuse_greater_role(work, organization_id, role)
    await queries.organization_by_id(work.session, organization_id)
    await check_team_of(work, organization_id, role, team_id)
    await check_cost_center(work, target, cost_center_id)
    user = await _user_for_member(work, email, name)
    if await _is_member(work, organization_id, user):
        raise Conflict(f"{user.email} is a member already.", field=("email",))
    row = Member(
        id=work.new_id(),
        organization_id=organization_id,
        user_id=user.id,
        team_id=team_id,
        cost_center_id=cost_center_id,
        role=role,
        created_at=work.now,
    )
    work.session.add(row)
    await work.session.flush()
    record(work, "member.create", row, organization_id=organization_id, after=facts(row))
    await policy_changed(work, organization_id)
    return row


async def create_user(
    work: Work, *, email: str, name: str | None = None, operator: bool = False
) -> User:
    """Create a user.

    Raises `InvalidInput`, and `Conflict` when the address is known.
    """
    address = checked_email(email)
    if await queries.user_by_email(work.session, address) is not None:
        raise Conflict(f"{address} is known already.", field=("email",))
    row = User(
        id=work.new_id(),
        email=address,
        name=None if name is None else checked_text(name, "name", NAME_LENGTH_MAX),
        operator=operator,
        created_at=work.now,
    )
    work.session.add(row)
    await work.session.flush()
    return row


def checked_email(text: str) -> str:
    """Accept an e-mail address and return it in lower case.

    Raises `InvalidInput`.
    """
    address = text.strip().lower()
    if len(address) > EMAIL_LENGTH_MAX or _EMAIL.fullmatch(address) is None:
        raise InvalidInput("Write an e-mail address such as ada@example.org.", field=("email",))
    return address


async def policies_changed(work: Work, organization_ids: Sequence[UUID]) -> None:
    """Count a change of the policy of many organizations and have each published."""
    for start in range(0, len(organization_ids), IDS_PER_UPDATE_MAX):
        part = organization_ids[start : start + IDS_PER_UPDATE_MAX]
        await work.session.execute(_count_epoch(Organization.id.in_(part)))
    for organization_id in organization_ids:
        work.announce(OrganizationChanged(organization_id, policy=True))


async def policy_changed(work: Work, organization_id: UUID) -> None:
    """Count a change of policy and have it published after the commit."""
    await _next_epoch(work, organization_id)
    work.announce(OrganizationChanged(organization_id, policy=True))


async def key_changed(work: Work, organization_id: UUID, key_id: UUID, *, policy: bool) -> None:
    """Count a change of a key and have it published after the commit."""
    await _next_epoch(work, organization_id)
    work.announce(OrganizationChanged(organization_id, (key_id,), policy=policy))


async def _next_epoch(work: Work, organization_id: UUID) -> None:
    await work.session.execute(_count_epoch(Organization.id == organization_id))


def _count_epoch(condition: ColumnElement[bool]) -> Update:
    return (
        update(Organization)
        .where(condition)
        .values(epoch=Organization.epoch + 1)
        .execution_options(synchronize_session=False)
    )


async def check_cost_center(work: Work, target: Target, cost_center_id: UUID | None) -> None:
    """Check that a cost center may be given to the target, or to what is about to be made in it.

    Raises `Conflict` for an archived one, `NotFound`, `NotPermitted`.
    """
    if cost_center_id is None:
        return
    found = await queries.cost_center_by_id(work.session, target.organization_id, cost_center_id)
    require(work.caller, Action.COST_CENTERS_WRITE, target, "cost center")
    if found.archived_at is not None:
        raise Conflict("An archived cost center is given to nothing new.", field=("costCenterId",))


def refuse_greater_role(work: Work, organization_id: UUID, role: Role) -> None:
    """Refuse that one whose reach is a team gives, or takes, a role above those of a team.

    Raises `NotPermitted`.
    """
    reach = work.caller.reach(Action.MEMBERS_WRITE, organization_id)
    if reach is not Reach.ORGANIZATION and role not in _ROLES_OF_A_TEAM:
        raise NotPermitted("Your role cannot give more than it has.")


async def check_team_of(
    work: Work, organization_id: UUID, role: Role, team_id: UUID | None
) -> None:
    """Check that the team exists, and that a team's admin has one.

    Raises `InvalidInput`, `NotFound`.
    """
    if team_id is not None:
        await queries.team_by_id(work.session, organization_id, team_id)
    elif role is Role.TEAM_ADMIN:
        raise InvalidInput("A team admin needs a team.", field=("teamId",))


async def _user_for_member(work: Work, email: str, name: str | None) -> User:
    known = await queries.user_by_email(work.session, checked_email(email))
    if known is None:
        return await create_user(work, email=email, name=name)
    if known.operator:
        raise Conflict("An operator is a member of no organization.", field=("email",))
    return known


async def _is_member(work: Work, organization_id: UUID, user: User) -> bool:
    found = await work.session.scalar(
        owned(Member, organization_id).where(Member.user_id == user.id)
    )
    return found is not None


def _slug_from(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower())[:63].strip("-")
