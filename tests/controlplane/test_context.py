"""A unit of work tells its changes whenever they may be in the tables, and only then."""

from __future__ import annotations

import asyncio
from uuid import uuid4

import pytest
from sqlalchemy import text

from controlplane.authz import SYSTEM
from controlplane.context import Installation, unit_of_work
from controlplane.db import Database
from controlplane.events import Events, OrganizationChanged

CHANGE = OrganizationChanged(uuid4())


def test_all_keys_and_one_key_are_all_keys() -> None:
    place, one, other = CHANGE.organization_id, uuid4(), uuid4()
    first = OrganizationChanged(place, (one,), policy=False)
    second = OrganizationChanged(place, (other, one), policy=True)
    assert first.merged(second) == OrganizationChanged(place, (one, other), policy=True)
    assert first.merged(CHANGE) == CHANGE.merged(first) == CHANGE
    silent = OrganizationChanged(place, policy=False)
    assert silent.merged(first) == first


async def test_changes_are_told_when_the_block_has_ended(
    database: Database,
    installation: Installation,
    events: Events,
    published: list[OrganizationChanged],
) -> None:
    async with unit_of_work(database, installation, events, SYSTEM) as work:
        work.announce(CHANGE)
        assert published == []
    assert published == [CHANGE]


async def test_a_block_that_fails_tells_nothing(
    database: Database,
    installation: Installation,
    events: Events,
    published: list[OrganizationChanged],
) -> None:
    async def fail() -> None:
        async with unit_of_work(database, installation, events, SYSTEM) as work:
            work.announce(CHANGE)
            raise ValueError("wrong")

    with pytest.raises(ValueError, match="wrong"):
        await fail()
    assert published == []


async def test_a_change_is_told_even_when_its_commit_is_cancelled(
    database: Database,
    installation: Installation,
    events: Events,
    published: list[OrganizationChanged],
) -> None:
    async def change() -> None:
        async with unit_of_work(database, installation, events, SYSTEM) as work:
            await work.session.execute(text("SELECT 1"))
            work.announce(CHANGE)
            # Strikes at the next await, which is that of the commit.
            task = asyncio.current_task()
            assert task is not None
            task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await asyncio.create_task(change())
    assert published == [CHANGE]
