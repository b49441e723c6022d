"""Editing a key: what is left out stays, null takes away, nobody gives a key out of reach."""

from __future__ import annotations

from datetime import timedelta

import pytest

from controlplane.cost_centers.service import archive_cost_center, create_cost_center
from controlplane.errors import Conflict, InvalidInput, NotFound, NotPermitted
from controlplane.keys.changes import update_key
from controlplane.keys.service import NewKey, create_key, revoke_key
from tests.controlplane.conftest import member_id
from tests.controlplane.everything import everything


@pytest.fixture
async def key(work_as, org, installation, published):
    new = NewKey(
        "ci",
        member_id=member_id(org.member),
        team_id=org.team,
        expires_at=installation.now() + timedelta(hours=1),
        tags={"stage": "test"},
    )
    async with work_as(org.admin) as work:
        made = (await create_key(work, org.id, new, idempotency_key="1")).key
    published.clear()
    return made


@pytest.fixture
def change(work_as, org, key):
    async def act(caller, changes, version=1):
        async with work_as(caller) as work:
            return await update_key(work, org.id, key.id, changes, expected_version=version)

    return act


async def test_left_out_stays_and_none_takes_away(change, org, key) -> None:
    renamed = await change(org.admin, {"name": "cd"})
    assert (renamed.name, renamed.expires_at, renamed.tags) == ("cd", key.expires_at, key.tags)
    endless = await change(org.admin, {"expires_at": None, "tags": {}, "member_id": None}, 2)
    assert (endless.expires_at, endless.tags, endless.member_id) == (None, {}, None)
    assert (endless.name, endless.team_id, endless.version) == ("cd", org.team, 3)


async def test_an_expired_key_can_be_renamed_and_made_to_work_again(
    change, org, key, clock, installation
) -> None:
    clock.advance_ns(2 * 3600 * 10**9)
    renamed = await change(org.admin, {"name": "cd", "expires_at": key.expires_at})
    assert renamed.version == 2
    with pytest.raises(InvalidInput) as raised:
        await change(org.admin, {"expires_at": installation.now()}, 2)
    assert raised.value.field == ("expiresAt",)
    later = installation.now() + timedelta(seconds=1)
    assert (await change(org.admin, {"expires_at": later}, 2)).expires_at == later


async def test_nobody_gives_a_key_to_where_it_does_not_reach(
    change, org, foreign, key, database, published
) -> None:
    refused = [
        (org.member, {"member_id": member_id(org.other_member)}, NotFound),
        (org.member, {"member_id": None}, NotPermitted),
        (org.member, {"team_id": org.other_team}, NotFound),
        (org.team_admin, {"team_id": org.other_team}, NotFound),
        (org.team_admin, {"team_id": None, "member_id": None}, NotPermitted),
        (org.team_admin, {"team_id": None, "member_id": member_id(org.team_admin)}, NotPermitted),
        (org.member, {"team_id": None}, NotPermitted),
        (org.billing_viewer, {"name": "x"}, NotPermitted),
        (org.other_member, {"name": "x"}, NotFound),
        (foreign.admin, {"name": "x"}, NotFound),
        (org.admin, {"team_id": foreign.team}, NotFound),
        (org.admin, {"member_id": member_id(foreign.member)}, NotFound),
        (org.admin, {"name": " "}, InvalidInput),
        (org.admin, {"tags": {"": "x"}}, InvalidInput),
        (org.admin, {"tags": {f"t{number}": "v" for number in range(21)}}, InvalidInput),
    ]
    before = await everything(database)
    for caller, changes, fault in refused:
        with pytest.raises(fault):
            await change(caller, changes)
    assert await everything(database) == before
    assert published == []
    moved = await change(org.team_admin, {"member_id": member_id(org.team_admin)})
    assert moved.member_id == member_id(org.team_admin)


async def test_who_decides_where_a_key_is_booked(change, work_as, org, database) -> None:
    async with work_as(org.admin) as work:
        center = await create_cost_center(work, org.id, code="1", name="One")
        old = await create_cost_center(work, org.id, code="2", name="Two")
        await archive_cost_center(work, org.id, old.id, expected_version=1)
    given = await change(org.team_admin, {"cost_center_id": center.id})
    assert given.cost_center_id == center.id
    before = await everything(database)
    for caller, cost_center_id, fault in [
        (org.member, None, NotPermitted),
        (org.member, old.id, NotPermitted),
        (org.admin, old.id, Conflict),
    ]:
        with pytest.raises(fault):
            await change(caller, {"cost_center_id": cost_center_id}, 2)
    new = NewKey("mine", cost_center_id=center.id)
    with pytest.raises(NotPermitted):
        async with work_as(org.member) as work:
            await create_key(work, org.id, new, idempotency_key="2")
    assert await everything(database) == before


async def test_a_revoked_key_stays_as_it_is(change, work_as, org, key, database) -> None:
    async with work_as(org.admin) as work:
        await revoke_key(work, org.id, key.id)
    before = await everything(database)
    with pytest.raises(Conflict):
        await change(org.admin, {"name": "x"}, 2)
    assert await everything(database) == before
