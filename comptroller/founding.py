"""The first people and organizations of an installation, made from the command line."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from comptroller.settings import Settings
from controlplane.access.service import create_access_token, create_operator
from controlplane.authz import SYSTEM, Role
from controlplane.clock import SystemClock
from controlplane.context import Installation, Work, unit_of_work
from controlplane.db import Database
from controlplane.events import Events
from controlplane.ids import IdSource
from controlplane.keys.secret import load_or_create_pepper
from controlplane.keys.service import NewKey, create_key
from controlplane.limits.models import Period, ScopeKind
from controlplane.limits.service import set_breaker, upsert_budget
from controlplane.limits.subjects import Scope
from controlplane.migrations import upgrade
from controlplane.money import parse_money
from controlplane.tenancy.models import User
from controlplane.tenancy.service import create_member, create_organization, create_team

DEMO_BUDGET = "1.00"
DEMO_BREAKER_MINUTE = "50.00"


@dataclass(frozen=True, slots=True)
class Founded:
    """What `comptroller init` made; the secrets are shown this once."""

    organization_id: UUID
    operator_token: str
    admin_token: str


@dataclass(frozen=True, slots=True)
class Demo:
    """The secrets of the demo organization, which live in its data folder."""

    organization_id: str
    admin_token: str
    key: str
    operator_token: str


async def found(settings: Settings, *, email: str, slug: str, name: str, currency: str) -> Founded:
    """Make the operator, the first organization and its admin.

    Raises `UserFault` when one of them exists or a value is wrong; nothing is made then.
    """
    # Making the pepper also makes the data folder, in which the database file will be.
    installation = _installation(settings)
    await upgrade(settings.database_url)
    database = Database(settings.database_url)
    try:
        async with unit_of_work(database, installation, Events(), SYSTEM) as work:
            return await _found(work, email, slug, name, currency)
    finally:
        await database.aclose()


async def found_demo(settings: Settings) -> Demo:
    """Make the demo organization: an admin, a team, and a key with a small budget."""
    # Making the pepper also makes the data folder, in which the database file will be.
    installation = _installation(settings)
    await upgrade(settings.database_url)
    database = Database(settings.database_url)
    try:
        async with unit_of_work(database, installation, Events(), SYSTEM) as work:
            return await _found_demo(work)
    finally:
        await database.aclose()


async def _found(work: Work, email: str, slug: str, name: str, currency: str) -> Founded:
    operator = await create_operator(work, email=f"operator+{email}")
    organization = await create_organization(work, slug=slug, name=name, currency=currency)
    admin = await create_member(work, organization.id, email=email, role=Role.ADMIN)
    user = await _user_of(work, admin.user_id)
    return Founded(
        organization_id=organization.id,
        operator_token=await create_access_token(work, user=operator, member=None, name="init"),
        admin_token=await create_access_token(work, user=user, member=admin, name="init"),
    )


async def _found_demo(work: Work) -> Demo:
    founded = await _found(work, "ada@demo.example", "demo", "Demo", "USD")
    organization_id = founded.organization_id
    team = await create_team(work, organization_id, name="Research")
    member = await create_member(work, organization_id, email="grace@demo.example", team_id=team.id)
    created = await create_key(
        work,
        organization_id,
        NewKey("Demo key", member_id=member.id, team_id=team.id, requests_per_minute=600),
        idempotency_key="demo",
    )
    budgets = (
        (Scope(ScopeKind.KEY, created.key.id), Period.DAY, DEMO_BUDGET),
        (Scope(ScopeKind.TEAM, team.id), Period.MONTH, "20.00"),
        (Scope(ScopeKind.ORGANIZATION, organization_id), Period.MONTH, "100.00"),
    )
    for scope, period, cap in budgets:
        await upsert_budget(work, organization_id, scope, period=period, cap_nanos=parse_money(cap))
    await set_breaker(
        work,
        organization_id,
        Scope(ScopeKind.ORGANIZATION, organization_id),
        minute_nanos=parse_money(DEMO_BREAKER_MINUTE),
        hour_nanos=None,
    )
    assert created.secret is not None
    return Demo(
        organization_id=str(organization_id),
        admin_token=founded.admin_token,
        key=created.secret,
        operator_token=founded.operator_token,
    )


async def _user_of(work: Work, user_id: UUID) -> User:
    user = await work.session.get(User, user_id)
    assert user is not None
    return user


def _installation(settings: Settings) -> Installation:
    clock = SystemClock()
    pepper = load_or_create_pepper(settings.control.data_dir)
    return Installation(settings.control, clock, IdSource(clock), pepper)
