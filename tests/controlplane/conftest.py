"""An installation with one organization and every kind of caller."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

import pytest

from controlplane.authz import SYSTEM, Caller, Membership, Role
from controlplane.clock import ManualClock
from controlplane.context import Installation, Work, unit_of_work
from controlplane.db import Database
from controlplane.events import Events, OrganizationChanged
from controlplane.ids import IdSource
from controlplane.settings import ControlSettings
from controlplane.tenancy import service as tenancy
from controlplane.tenancy.models import Member, Organization

PEPPER = bytes(range(32))

WorkAs = Callable[[Caller], AbstractAsyncContextManager[Work]]


@pytest.fixture
def installation(clock: ManualClock, tmp_path: Path) -> Installation:
    return Installation(ControlSettings(data_dir=tmp_path), clock, IdSource(clock), PEPPER)


@pytest.fixture
def published() -> list[OrganizationChanged]:
    """What has been published, in order."""
    return []


@pytest.fixture
def events(published: list[OrganizationChanged]) -> Events:
    made = Events()

    async def listen(change: OrganizationChanged) -> None:
        published.append(change)

    made.subscribe(listen)
    return made


@pytest.fixture
def work_as(database: Database, installation: Installation, events: Events) -> WorkAs:
    """Open a writing transaction for a caller; commits and publishes at its end."""

    @asynccontextmanager
    async def work(caller: Caller) -> AsyncIterator[Work]:
        async with unit_of_work(database, installation, events, caller) as opened:
            yield opened

    return work


@dataclass(frozen=True, slots=True)
class Org:
    """An organization with two teams and a caller of each role.

    `team_admin` and `member` are in `team`, `other_member` is in `other_team`.
    """

    id: UUID
    team: UUID
    other_team: UUID
    admin: Caller
    billing_viewer: Caller
    team_admin: Caller
    member: Caller
    other_member: Caller

    def callers(self) -> dict[str, Caller]:
        names = ("admin", "billing_viewer", "team_admin", "member", "other_member")
        return {name: getattr(self, name) for name in names}


def member_id(caller: Caller) -> UUID:
    assert caller.membership is not None
    return caller.membership.member_id


def caller_for(member: Member) -> Caller:
    membership = Membership(member.organization_id, member.id, member.role, member.team_id)
    return Caller(member.user_id, membership=membership)


async def make_org(work: Work, slug: str) -> Org:
    organization: Organization = await tenancy.create_organization(
        work, slug=slug, name=slug.title(), time_zone="Europe/Berlin"
    )
    team = await tenancy.create_team(work, organization.id, name="Red")
    other_team = await tenancy.create_team(work, organization.id, name="Blue")

    async def caller(name: str, role: Role, team_id: UUID | None) -> Caller:
        email = f"{name}@{slug}.example"
        member = await tenancy.create_member(
            work, organization.id, email=email, role=role, team_id=team_id
        )
        return caller_for(member)

    return Org(
        id=organization.id,
        team=team.id,
        other_team=other_team.id,
        admin=await caller("admin", Role.ADMIN, None),
        billing_viewer=await caller("billing", Role.BILLING_VIEWER, None),
        team_admin=await caller("lead", Role.TEAM_ADMIN, team.id),
        member=await caller("member", Role.MEMBER, team.id),
        other_member=await caller("other", Role.MEMBER, other_team.id),
    )


@pytest.fixture
async def org(work_as: WorkAs, published: list[OrganizationChanged]) -> Org:
    """The organization under test."""
    async with work_as(SYSTEM) as work:
        made = await make_org(work, "acme")
    published.clear()
    return made


@pytest.fixture
async def foreign(work_as: WorkAs, org: Org, published: list[OrganizationChanged]) -> Org:
    """Another organization, whose objects must not exist for the first."""
    async with work_as(SYSTEM) as work:
        made = await make_org(work, "globex")
    published.clear()
    return made


@pytest.fixture
async def operator(work_as: WorkAs, published: list[OrganizationChanged]) -> Caller:
    """The installation's operator."""
    async with work_as(SYSTEM) as work:
        user = await tenancy.create_user(work, email="root@example.org", operator=True)
    published.clear()
    return Caller(user.id, operator=True)
