"""Limits of providers and of the installation: the operator's, and told to who enforces them."""

from __future__ import annotations

from uuid import uuid4

import pytest
from sqlalchemy import select

from controlplane.audit.models import AdminEvent
from controlplane.authz import Caller
from controlplane.errors import InvalidInput, NotFound, NotPermitted, StaleVersion
from controlplane.limits.installation import (
    archive_installation_limit,
    set_installation_limit,
)
from controlplane.limits.labels import label_id
from controlplane.limits.models import LimitKind, Mode, Period, Resource, ScopeKind
from controlplane.tenancy.models import User
from tests.controlplane.everything import everything


@pytest.fixture
async def operator(work_as, org, database) -> Caller:
    async with database.write() as session:
        row = User(
            id=uuid4(),
            email="root@example.org",
            name=None,
            operator=True,
            created_at=org.admin and (await session.scalar(select(User.created_at))),
        )
        session.add(row)
    return Caller(row.id, operator=True)


@pytest.fixture
def limit(work_as, operator):
    async def change(provider, resource, cap, caller=None, **more):
        async with work_as(caller or operator) as work:
            return await set_installation_limit(
                work, provider=provider, resource=resource, cap=cap, **more
            )

    return change


async def test_each_resource_has_its_kind_and_window(limit, database, events) -> None:
    told = []

    async def listen() -> None:
        told.append(1)

    events.subscribe_installation(listen)
    rows = [
        await limit("openai", Resource.REQUESTS, 500),
        await limit("openai", Resource.TOKENS, 10**6),
        await limit("openai", Resource.CONCURRENCY, 40),
        await limit(None, Resource.SPEND, 10**12, period=Period.MONTH, time_zone="Asia/Taipei"),
    ]
    assert [(row.kind, row.mode, row.scope_kind) for row in rows] == [
        (LimitKind.RATE, Mode.HARD, ScopeKind.PROVIDER),
        (LimitKind.RATE, Mode.METERED, ScopeKind.PROVIDER),
        (LimitKind.CONCURRENCY, Mode.HARD, ScopeKind.PROVIDER),
        (LimitKind.BUDGET, Mode.HARD, ScopeKind.INSTALLATION),
    ]
    assert rows[0].scope_id == label_id(ScopeKind.PROVIDER, "openai")
    assert rows[3].scope_id == label_id(ScopeKind.INSTALLATION, "")
    changed = await limit("openai", Resource.REQUESTS, 600, expected_version=1)
    assert (changed.id, changed.cap, changed.version) == (rows[0].id, 600, 2)
    assert len(told) == 5
    async with database.read() as session:
        query = select(AdminEvent).where(AdminEvent.target_id == changed.id)
        events_of = {each.action: each for each in await session.scalars(query)}
    assert set(events_of) == {"installation_limit.create", "installation_limit.change"}
    assert {each.organization_id for each in events_of.values()} == {None}
    assert events_of["installation_limit.change"].before["cap"] == 500


async def test_nobody_but_the_operator_touches_them(limit, work_as, org, database, events) -> None:
    made = await limit("openai", Resource.REQUESTS, 500)
    told = []

    async def listen() -> None:
        told.append(1)

    events.subscribe_installation(listen)
    before = await everything(database)
    for caller in org.callers().values():
        with pytest.raises(NotPermitted):
            await limit("openai", Resource.REQUESTS, 1, caller, expected_version=1)
        with pytest.raises(NotPermitted):
            async with work_as(caller) as work:
                await archive_installation_limit(work, made.id, expected_version=1)
    assert await everything(database) == before
    assert told == []


@pytest.mark.parametrize(
    ("values", "fault"),
    [
        (("", Resource.REQUESTS, 1), InvalidInput),
        (("openai", Resource.REQUESTS, -1), InvalidInput),
        (("openai", Resource.REQUESTS, 10**12 + 1), InvalidInput),
        (("openai", Resource.CONCURRENCY, 10**6 + 1), InvalidInput),
        (("openai", Resource.SPEND, 1), InvalidInput),
        (("openai", Resource.REQUESTS, 1, {"period": Period.DAY}), InvalidInput),
        (("openai", Resource.SPEND, 1, {"period": Period.DAY, "time_zone": "Mars"}), InvalidInput),
        (("openai", Resource.SPEND, -1, {"period": Period.DAY}), InvalidInput),
        (("openai", Resource.REQUESTS, 1, {"mode": Mode.METERED}), InvalidInput),
        (("openai", Resource.REQUESTS, 1, {"expected_version": 1}), StaleVersion),
    ],
)
async def test_what_cannot_be_changes_nothing(limit, database, values, fault) -> None:
    provider, resource, cap, *more = values
    before = await everything(database)
    with pytest.raises(fault):
        await limit(provider, resource, cap, **(more[0] if more else {}))
    assert await everything(database) == before


async def test_a_limit_is_lifted_and_comes_back(limit, work_as, operator, database) -> None:
    made = await limit("openai", Resource.REQUESTS, 500)

    async def lift(version: int) -> None:
        async with work_as(operator) as work:
            await archive_installation_limit(work, made.id, expected_version=version)

    with pytest.raises(StaleVersion):
        await lift(2)
    await lift(1)
    with pytest.raises(NotFound):
        await lift(2)
    again = await limit("openai", Resource.REQUESTS, 1)
    assert (again.id, again.archived_at, again.version) == (made.id, None, 3)
