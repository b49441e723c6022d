"""Limits: set by those who may, changed by those who saw the latest version."""

from __future__ import annotations

import pytest
from sqlalchemy import func, select

from controlplane.audit.models import AdminEvent
from controlplane.errors import InvalidInput, NotFound, NotPermitted, StaleVersion
from controlplane.events import OrganizationChanged
from controlplane.keys.service import NewKey, create_key
from controlplane.limits.models import CAP_MAX, Limit, Mode, Period, ScopeKind
from controlplane.limits.service import (
    archive_budget,
    set_breaker,
    set_rate_limit,
    upsert_budget,
)
from controlplane.limits.subjects import Scope


def member(caller) -> Scope:
    return Scope(ScopeKind.MEMBER, caller.membership.member_id)


async def rows(database) -> tuple[int, int]:
    async with database.read() as session:
        limits = await session.scalar(select(func.sum(Limit.version)))
        events = await session.scalar(select(func.count()).select_from(AdminEvent))
    return int(limits or 0), int(events or 0)


async def test_a_budget_is_created_changed_lifted_and_revived(work_as, org, database, published):
    scope = Scope(ScopeKind.ORGANIZATION, org.id)

    async def upsert(cap_nanos, **more):
        async with work_as(org.admin) as work:
            return await upsert_budget(
                work, org.id, scope, period=Period.DAY, cap_nanos=cap_nanos, **more
            )

    made = await upsert(5)
    assert (made.cap, made.mode, made.window_time_zone, made.version) == (
        5,
        Mode.HARD,
        "Europe/Berlin",
        1,
    )
    changed = await upsert(9, mode=Mode.SOFT, expected_version=1)
    assert (changed.id, changed.cap, changed.mode, changed.version) == (made.id, 9, Mode.SOFT, 2)
    async with work_as(org.admin) as work:
        await archive_budget(work, org.id, made.id, expected_version=2)
    revived = await upsert(1)
    assert (revived.id, revived.version, revived.archived_at) == (made.id, 4, None)
    assert published == [OrganizationChanged(org.id, policy=True)] * 4
    async with database.read() as session:
        query = select(AdminEvent).where(AdminEvent.target_id == made.id)
        events = {each.after["version"]: each for each in await session.scalars(query)}
    assert {version: each.action for version, each in events.items()} == {
        1: "budget.create",
        2: "budget.change",
        3: "budget.archive",
        4: "budget.change",
    }
    assert (events[2].before["cap"], events[2].after["cap"]) == (5, 9)


@pytest.mark.parametrize("expected_version", [None, 2])
async def test_a_stale_edit_is_refused(work_as, org, database, expected_version):
    scope = Scope(ScopeKind.TEAM, org.team)
    async with work_as(org.admin) as work:
        await upsert_budget(work, org.id, scope, period=Period.DAY, cap_nanos=5)
    before = await rows(database)
    with pytest.raises(StaleVersion, match="version 1"):
        async with work_as(org.admin) as work:
            await upsert_budget(
                work,
                org.id,
                scope,
                period=Period.DAY,
                cap_nanos=6,
                expected_version=expected_version,
            )
    assert await rows(database) == before


@pytest.mark.parametrize(
    "values",
    [{"cap_nanos": -1}, {"cap_nanos": CAP_MAX + 1}, {"time_zone": "Mars"}, {"mode": Mode.METERED}],
)
async def test_an_unusable_budget_changes_nothing(work_as, org, database, published, values):
    scope = Scope(ScopeKind.ORGANIZATION, org.id)
    before = await rows(database)
    arguments = {"period": Period.DAY, "cap_nanos": 1, **values}
    with pytest.raises(InvalidInput):
        async with work_as(org.admin) as work:
            await upsert_budget(work, org.id, scope, **arguments)
    assert await rows(database) == before
    assert published == []


async def test_the_largest_cap_is_kept_exactly(work_as, org, database):
    scope = Scope(ScopeKind.ORGANIZATION, org.id)
    async with work_as(org.admin) as work:
        await upsert_budget(work, org.id, scope, period=Period.WEEK, cap_nanos=CAP_MAX)
    async with database.read() as session:
        assert await session.scalar(select(Limit.cap)) == CAP_MAX


async def test_rates_are_set_together_and_lifted_by_none(work_as, org):
    async with work_as(org.admin) as work:
        key = (await create_key(work, org.id, NewKey("ci"), idempotency_key="1")).key

    async def rates(requests, tokens, version):
        async with work_as(org.admin) as work:
            pair = await set_rate_limit(
                work,
                org.id,
                Scope(ScopeKind.KEY, key.id),
                requests_per_minute=requests,
                tokens_per_minute=tokens,
                expected_version=version,
            )
        return pair.caps, pair.version

    assert await rates(10, None, None) == ((10, None), 1)
    assert await rates(10, 500, 1) == ((10, 500), 2)
    assert await rates(None, 500, 2) == ((None, 500), 3)
    assert await rates(10, 500, 3) == ((10, 500), 4)
    with pytest.raises(StaleVersion):
        await rates(1, 1, 3)


async def test_a_key_has_no_breaker(work_as, org, database):
    before = await rows(database)
    scope = Scope(ScopeKind.KEY, org.id)
    with pytest.raises(InvalidInput):
        async with work_as(org.admin) as work:
            await set_breaker(work, org.id, scope, minute_nanos=1, hour_nanos=1)
    assert await rows(database) == before


async def test_who_may_set_which_budget(work_as, org, foreign, database):
    organization = Scope(ScopeKind.ORGANIZATION, org.id)
    team, other_team = (Scope(ScopeKind.TEAM, each) for each in (org.team, org.other_team))
    refused = [
        (org.billing_viewer, organization, NotPermitted),
        (org.team_admin, organization, NotFound),
        (org.team_admin, other_team, NotFound),
        (org.team_admin, member(org.other_member), NotFound),
        (org.member, team, NotFound),
        (org.member, member(org.member), NotPermitted),
        (foreign.admin, organization, NotFound),
        (foreign.admin, team, NotFound),
        (org.admin, Scope(ScopeKind.TEAM, foreign.team), NotFound),
        (org.admin, Scope(ScopeKind.ORGANIZATION, foreign.id), NotFound),
        (org.team_admin, team, NotPermitted),
    ]
    before = await rows(database)
    for caller, scope, fault in refused:
        with pytest.raises(fault):
            async with work_as(caller) as work:
                await upsert_budget(work, org.id, scope, period=Period.DAY, cap_nanos=1)
    assert await rows(database) == before
    for caller, scope in [(org.team_admin, member(org.member)), (org.admin, team)]:
        async with work_as(caller) as work:
            await upsert_budget(work, org.id, scope, period=Period.DAY, cap_nanos=1)
