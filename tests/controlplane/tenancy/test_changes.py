"""Editing teams and members: roles, reach, the last admin, cost centers."""

from __future__ import annotations

import pytest

from controlplane.authz import SYSTEM, Role
from controlplane.cost_centers.service import archive_cost_center, create_cost_center
from controlplane.errors import Conflict, InvalidInput, NotFound, NotPermitted
from controlplane.tenancy.changes import update_member, update_team
from controlplane.tenancy.models import Member
from tests.controlplane.conftest import member_id
from tests.controlplane.everything import everything


async def change(work_as, caller, org, member, changes, version=1):
    async with work_as(caller) as work:
        return await update_member(work, org.id, member, changes, expected_version=version)


async def test_who_may_make_what_of_whom(work_as, org, foreign, database, published) -> None:
    await change(work_as, org.admin, org, member_id(org.billing_viewer), {"team_id": org.team})
    published.clear()
    mate, boss = member_id(org.member), member_id(org.admin)
    viewer, other = member_id(org.billing_viewer), member_id(org.other_member)
    refused = [
        # A team's admin gives no more than it has, and touches nobody who has more.
        (org.team_admin, mate, {"role": Role.ADMIN}, 1, NotPermitted),
        (org.team_admin, mate, {"role": Role.BILLING_VIEWER}, 1, NotPermitted),
        (org.team_admin, viewer, {"team_id": None}, 2, NotPermitted),
        (org.team_admin, mate, {"team_id": org.other_team}, 1, NotFound),
        (org.team_admin, other, {"team_id": org.team}, 1, NotFound),
        (org.team_admin, boss, {"role": Role.MEMBER}, 1, NotFound),
        (org.member, mate, {"role": Role.TEAM_ADMIN}, 1, NotPermitted),
        (org.billing_viewer, viewer, {"role": Role.ADMIN}, 2, NotPermitted),
        (foreign.admin, mate, {"role": Role.MEMBER}, 1, NotFound),
        (org.admin, mate, {"team_id": foreign.team}, 1, NotFound),
        (org.admin, mate, {"role": Role.TEAM_ADMIN, "team_id": None}, 1, InvalidInput),
        (org.admin, boss, {"role": Role.MEMBER}, 1, Conflict),
    ]
    before = await everything(database)
    for caller, member, changes, version, fault in refused:
        with pytest.raises(fault):
            await change(work_as, caller, org, member, changes, version)
    assert await everything(database) == before
    assert published == []
    made = await change(work_as, org.team_admin, org, mate, {"role": Role.TEAM_ADMIN})
    assert (made.role, made.team_id, made.version) == (Role.TEAM_ADMIN, org.team, 2)
    removed = await change(
        work_as, org.team_admin, org, mate, {"team_id": None, "role": Role.MEMBER}, 2
    )
    assert (removed.role, removed.team_id, removed.version) == (Role.MEMBER, None, 3)


async def test_the_last_admin_stays(work_as, org, database) -> None:
    first, second = member_id(org.admin), member_id(org.member)
    await change(work_as, org.admin, org, second, {"role": Role.ADMIN})
    demoted = await change(work_as, org.admin, org, first, {"role": Role.BILLING_VIEWER})
    assert demoted.role is Role.BILLING_VIEWER
    with pytest.raises(Conflict, match="last admin") as raised:
        await change(work_as, SYSTEM, org, second, {"role": Role.MEMBER}, 2)
    assert raised.value.field == ("role",)
    async with database.read() as session:
        assert (await session.get(Member, second)).role is Role.ADMIN


async def test_an_archived_cost_center_is_kept_and_not_given(work_as, org, database) -> None:
    async with work_as(org.admin) as work:
        center = await create_cost_center(work, org.id, code="1", name="One")
        await update_team(work, org.id, org.team, {"cost_center_id": center.id}, expected_version=1)
        await archive_cost_center(work, org.id, center.id, expected_version=1)
    async with work_as(org.admin) as work:
        kept = {"name": "Crimson", "cost_center_id": center.id}
        team = await update_team(work, org.id, org.team, kept, expected_version=2)
    assert (team.name, team.cost_center_id, team.version) == ("Crimson", center.id, 3)
    before = await everything(database)
    given = {"cost_center_id": center.id}
    with pytest.raises(Conflict) as raised:
        async with work_as(org.admin) as work:
            await update_team(work, org.id, org.other_team, given, expected_version=1)
    assert raised.value.field == ("costCenterId",)
    with pytest.raises(Conflict):
        await change(work_as, org.admin, org, member_id(org.member), given)
    assert await everything(database) == before
    async with work_as(org.admin) as work:
        taken = {"cost_center_id": None}
        team = await update_team(work, org.id, org.team, taken, expected_version=3)
    assert team.cost_center_id is None


async def test_who_gives_cost_centers(work_as, org, database) -> None:
    async with work_as(org.admin) as work:
        center = await create_cost_center(work, org.id, code="1", name="One")
    given = await change(
        work_as, org.team_admin, org, member_id(org.member), {"cost_center_id": center.id}
    )
    assert given.cost_center_id == center.id
    before = await everything(database)
    with pytest.raises(NotFound):
        async with work_as(org.team_admin) as work:
            await create_cost_center(work, org.id, code="2", name="Two")
    changes = {"cost_center_id": center.id}
    with pytest.raises(NotPermitted):
        async with work_as(org.team_admin) as work:
            await update_team(work, org.id, org.team, changes, expected_version=1)
    assert await everything(database) == before
