"""Rates and limits of concurrency of every scope, for all or some of its requests."""

from __future__ import annotations

import pytest

from controlplane.errors import InvalidInput, NotFound, NotPermitted, StaleVersion
from controlplane.keys.service import NewKey, create_key
from controlplane.limits.models import LimitKind, Mode, Resource, ScopeKind, WindowKind
from controlplane.limits.queries import pairs_named
from controlplane.limits.rows import pair_id_of
from controlplane.limits.service import (
    CONCURRENCY_MAX,
    archive_concurrency_limit,
    set_concurrency_limit,
    set_rate_limit,
)
from controlplane.limits.subjects import Scope, labelled
from tests.controlplane.conftest import member_id
from tests.controlplane.everything import everything


async def test_rates_are_any_scopes_and_of_some_requests_alone(work_as, org, database) -> None:
    team, where = Scope(ScopeKind.TEAM, org.team), {"models": ["gpt-5"]}

    async def rates(scope, requests, **more):
        async with work_as(org.admin) as work:
            return await set_rate_limit(
                work,
                org.id,
                scope,
                requests_per_minute=requests,
                tokens_per_minute=None,
                **more,
            )

    assert (await rates(team, 10)).caps == (10, None)
    narrowed = await rates(team, 3, where=where)
    assert (narrowed.caps, narrowed.where, narrowed.version) == ((3, None), where, 1)
    each = await rates(labelled(ScopeKind.END_USER, None), 1)
    assert each.caps == (1, None)
    lifted = await rates(team, None, where=where, expected_version=1)
    assert (lifted.caps, lifted.version) == ((None, None), 2)
    names = [pair_id_of(team, None), pair_id_of(team, where)]
    async with database.read() as session:
        found = await pairs_named(session, org.id, names)
    assert [found[name].caps for name in names] == [(10, None), (None, None)]
    assert names[0] == org.team


async def test_a_ceilings_rates_are_set_by_admins_alone(work_as, org, database) -> None:
    async with work_as(org.admin) as work:
        new = NewKey("ci", team_id=org.team)
        key = (await create_key(work, org.id, new, idempotency_key="1")).key
    team, of_key = Scope(ScopeKind.TEAM, org.team), Scope(ScopeKind.KEY, key.id)
    before = await everything(database)
    for caller, scope, fault in [
        (org.team_admin, team, NotPermitted),
        (org.team_admin, Scope(ScopeKind.ORGANIZATION, org.id), NotFound),
        (org.member, Scope(ScopeKind.MEMBER, member_id(org.member)), NotPermitted),
        (org.billing_viewer, of_key, NotPermitted),
    ]:
        with pytest.raises(fault):
            async with work_as(caller) as work:
                await set_rate_limit(
                    work, org.id, scope, requests_per_minute=1, tokens_per_minute=1
                )
        with pytest.raises(fault):
            async with work_as(caller) as work:
                await set_concurrency_limit(work, org.id, scope, requests_max=1)
    assert await everything(database) == before
    async with work_as(org.team_admin) as work:
        await set_concurrency_limit(work, org.id, of_key, requests_max=1)


async def test_concurrency_is_limited_and_let_go(work_as, org, database) -> None:
    scope = Scope(ScopeKind.ORGANIZATION, org.id)

    async def limit(requests_max, **more):
        async with work_as(org.admin) as work:
            return await set_concurrency_limit(
                work, org.id, scope, requests_max=requests_max, **more
            )

    made = await limit(CONCURRENCY_MAX)
    assert (made.kind, made.resource, made.window_kind, made.mode, made.cap) == (
        LimitKind.CONCURRENCY,
        Resource.CONCURRENCY,
        WindowKind.NOW,
        Mode.HARD,
        10**6,
    )
    other = await limit(5, where={"providers": ["openai"]})
    assert other.id != made.id
    changed = await limit(0, expected_version=1)
    assert (changed.id, changed.cap, changed.version) == (made.id, 0, 2)
    before = await everything(database)
    for values, fault in [
        ({"requests_max": 1}, StaleVersion),
        ({"requests_max": -1, "expected_version": 2}, InvalidInput),
        ({"requests_max": CONCURRENCY_MAX + 1, "expected_version": 2}, InvalidInput),
    ]:
        with pytest.raises(fault):
            await limit(**values)
    with pytest.raises(StaleVersion):
        async with work_as(org.admin) as work:
            await archive_concurrency_limit(work, org.id, made.id, expected_version=1)
    assert await everything(database) == before
    async with work_as(org.admin) as work:
        await archive_concurrency_limit(work, org.id, made.id, expected_version=2)
    revived = await limit(7)
    assert (revived.id, revived.version) == (made.id, 4)
