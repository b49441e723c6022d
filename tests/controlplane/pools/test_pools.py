"""Pools: who makes them, which keys draw on them, and what archiving one leaves."""

from __future__ import annotations

import json
from uuid import uuid4

import pytest

from controlplane.authz import SYSTEM
from controlplane.errors import Conflict, InvalidInput, NotFound, NotPermitted, StaleVersion
from controlplane.keys.changes import update_key
from controlplane.keys.service import NewKey, create_key
from controlplane.policies.snapshot import keys_snapshot
from controlplane.pools.models import POOLS_PER_KEY_MAX
from controlplane.pools.service import archive_pool, create_pool, rename_pool
from tests.controlplane.conftest import member_id
from tests.controlplane.everything import everything


@pytest.fixture
async def pools(work_as, org):
    async with work_as(org.admin) as work:
        return [
            await create_pool(work, org.id, name=f"Pool {number}")
            for number in range(POOLS_PER_KEY_MAX + 1)
        ]


async def test_a_pool_is_made_renamed_and_archived(work_as, org, database) -> None:
    async with work_as(org.admin) as work:
        made = await create_pool(work, org.id, name=" Research ", idempotency_key="1")
        again = await create_pool(work, org.id, name=" Research ", idempotency_key="1")
    assert (made.name, again.id) == ("Research", made.id)
    async with work_as(org.admin) as work:
        renamed = await rename_pool(work, org.id, made.id, name="Labs", expected_version=1)
    assert (renamed.name, renamed.version) == ("Labs", 2)
    before = await everything(database)
    for change, fault in [
        (lambda work: create_pool(work, org.id, name="Labs"), Conflict),
        (lambda work: create_pool(work, org.id, name=""), InvalidInput),
        (
            lambda work: rename_pool(work, org.id, made.id, name="x", expected_version=1),
            StaleVersion,
        ),
        (lambda work: archive_pool(work, org.id, made.id, expected_version=1), StaleVersion),
        (lambda work: archive_pool(work, org.id, uuid4(), expected_version=1), NotFound),
    ]:
        with pytest.raises(fault):
            async with work_as(org.admin) as work:
                await change(work)
    assert await everything(database) == before
    async with work_as(org.admin) as work:
        archived = await archive_pool(work, org.id, made.id, expected_version=2)
    before = await everything(database)
    async with work_as(org.admin) as work:
        await archive_pool(work, org.id, made.id, expected_version=2)
    assert archived.archived_at is not None
    assert await everything(database) == before


async def test_only_admins_make_pools(work_as, org, foreign, database) -> None:
    before = await everything(database)
    for caller, fault in [
        (org.billing_viewer, NotPermitted),
        (org.team_admin, NotFound),
        (org.member, NotFound),
        (foreign.admin, NotFound),
    ]:
        with pytest.raises(fault):
            async with work_as(caller) as work:
                await create_pool(work, org.id, name="Research")
    assert await everything(database) == before


async def test_a_key_draws_on_at_most_eight(work_as, org, pools, database) -> None:
    ids = tuple(each.id for each in pools)
    new = NewKey("ci", pool_ids=(*ids[:8], ids[0]))
    before = await everything(database)
    for wrong in (NewKey("ci", pool_ids=ids), new):
        with pytest.raises(InvalidInput):
            async with work_as(org.admin) as work:
                await create_key(work, org.id, wrong, idempotency_key="1")
    assert await everything(database) == before
    async with work_as(org.admin) as work:
        new = NewKey("ci", pool_ids=ids[:8][::-1])
        key = (await create_key(work, org.id, new, idempotency_key="1")).key
    async with database.read() as session:
        [shown] = json.loads(await keys_snapshot(session, org.id, [key.id]))
    assert shown["pools"] == sorted(str(each) for each in ids[:8])


async def test_pools_of_a_key_are_changed_by_admins_alone(
    work_as, org, foreign, pools, database, published
) -> None:
    async with work_as(org.member) as work:
        key = (await create_key(work, org.id, NewKey("mine"), idempotency_key="1")).key
    async with work_as(SYSTEM) as work:
        theirs = await create_pool(work, foreign.id, name="Theirs")

    async def draw(caller, pool_ids, version=1):
        async with work_as(caller) as work:
            changes = {"pool_ids": tuple(pool_ids)}
            return await update_key(work, org.id, key.id, changes, expected_version=version)

    before = await everything(database)
    published.clear()
    for caller, ids, fault in [
        (org.member, [pools[0].id], NotFound),
        (org.team_admin, [pools[0].id], NotFound),
        (org.admin, [theirs.id], NotFound),
        (org.admin, [uuid4()], NotFound),
    ]:
        with pytest.raises(fault):
            await draw(caller, ids)
    assert await everything(database) == before
    assert published == []
    changed = await draw(org.admin, [pools[1].id, pools[0].id])
    assert changed.pool_ids == sorted([str(pools[0].id), str(pools[1].id)])
    assert [each.key_ids for each in published] == [(key.id,)]
    with pytest.raises(NotFound):
        await draw(org.member, [], 2)
    # What does not change may be sent back by anybody.
    same = await draw(org.member, [pools[0].id, pools[1].id], 2)
    assert same.version == 2
    assert member_id(org.member) == same.member_id


async def test_an_archived_pool_is_kept_and_given_to_nothing_new(work_as, org, pools) -> None:
    kept, given = pools[0].id, pools[1].id
    async with work_as(org.admin) as work:
        new = NewKey("ci", pool_ids=(kept,))
        key = (await create_key(work, org.id, new, idempotency_key="1")).key
        await archive_pool(work, org.id, kept, expected_version=1)
        await archive_pool(work, org.id, given, expected_version=1)

    async def draw(*pool_ids):
        async with work_as(org.admin) as work:
            changes = {"pool_ids": pool_ids}
            return await update_key(work, org.id, key.id, changes, expected_version=1)

    with pytest.raises(Conflict):
        await draw(kept, given)
    assert len((await draw(kept, pools[2].id)).pool_ids) == 2
