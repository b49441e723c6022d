"""Organizations, teams and members: who may make them, and of what."""

from __future__ import annotations

import pytest
from sqlalchemy import func, select

from controlplane.audit.models import AdminEvent
from controlplane.authz import SYSTEM, Role
from controlplane.errors import Conflict, InvalidInput, NotFound, NotPermitted
from controlplane.events import OrganizationChanged
from controlplane.tenancy.models import Member, Organization, Team, User
from controlplane.tenancy.service import create_member, create_organization, create_team


async def counts(database) -> list[int]:
    tables = (Organization, Team, Member, User, AdminEvent)
    async with database.read() as session:
        return [await session.scalar(select(func.count()).select_from(each)) for each in tables]


@pytest.mark.parametrize(
    ("values", "fault", "field"),
    [
        ({"slug": "Acme"}, InvalidInput, "slug"),
        ({"slug": "a" * 64}, InvalidInput, "slug"),
        ({"slug": "-a"}, InvalidInput, "slug"),
        ({"slug": "acme"}, Conflict, "slug"),
        ({"name": ""}, InvalidInput, "name"),
        ({"currency": "usd"}, InvalidInput, "currency"),
        ({"time_zone": "Europe/Nowhere"}, InvalidInput, "timezone"),
    ],
)
async def test_an_unusable_organization_is_not_made(work_as, org, database, values, fault, field):
    before = await counts(database)
    arguments = {"slug": "new", "name": "New", **values}
    with pytest.raises(fault) as raised:
        async with work_as(SYSTEM) as work:
            await create_organization(work, **arguments)
    assert raised.value.field == (field,)
    assert await counts(database) == before


async def test_members_do_not_make_organizations(work_as, org, database) -> None:
    before = await counts(database)
    with pytest.raises(NotPermitted):
        async with work_as(org.admin) as work:
            await create_organization(work, slug="new", name="New")
    assert await counts(database) == before


async def test_a_team_gets_a_slug_from_its_name_and_is_published(work_as, org, published) -> None:
    async with work_as(org.admin) as work:
        team = await create_team(work, org.id, name="Green & Gold ")
    assert (team.slug, team.name, team.version) == ("green-gold", "Green & Gold", 1)
    assert published == [OrganizationChanged(org.id, policy=True)]


async def test_who_may_make_teams_and_members(work_as, org, foreign, database, published) -> None:
    async def team(caller) -> None:
        async with work_as(caller) as work:
            await create_team(work, org.id, name="Green")

    async def member(caller, role, team_id) -> None:
        async with work_as(caller) as work:
            await create_member(work, org.id, email="new@acme.example", role=role, team_id=team_id)

    before = await counts(database)
    for caller in (org.billing_viewer,):
        with pytest.raises(NotPermitted):
            await team(caller)
    for caller in (org.team_admin, org.member, foreign.admin):
        with pytest.raises(NotFound):
            await team(caller)
    refused = [
        (org.team_admin, Role.ADMIN, org.team, NotPermitted),
        (org.team_admin, Role.BILLING_VIEWER, org.team, NotPermitted),
        (org.team_admin, Role.MEMBER, org.other_team, NotFound),
        (org.team_admin, Role.MEMBER, None, NotFound),
        (org.member, Role.MEMBER, org.team, NotFound),
        (org.billing_viewer, Role.MEMBER, org.team, NotPermitted),
        (foreign.admin, Role.MEMBER, None, NotFound),
        (org.admin, Role.MEMBER, foreign.team, NotFound),
        (org.admin, Role.TEAM_ADMIN, None, InvalidInput),
    ]
    for caller, role, team_id, fault in refused:
        with pytest.raises(fault):
            await member(caller, role, team_id)
    assert await counts(database) == before
    assert published == []
    await member(org.team_admin, Role.MEMBER, org.team)
    with pytest.raises(Conflict, match="member already"):
        await member(org.admin, Role.MEMBER, None)


async def test_a_known_user_joins_a_second_organization(work_as, org, foreign, database) -> None:
    async with work_as(foreign.admin) as work:
        joined = await create_member(work, foreign.id, email=" ADMIN@acme.example ")
    assert joined.user_id == org.admin.user_id


async def test_every_change_counts_the_organizations_epoch(work_as, org, database) -> None:
    async def epoch() -> int:
        async with database.read() as session:
            return await session.scalar(select(Organization.epoch).where(Organization.id == org.id))

    before = await epoch()
    async with work_as(org.admin) as work:
        await create_team(work, org.id, name="Green")
    assert await epoch() == before + 1
