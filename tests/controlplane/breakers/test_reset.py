"""A breaker that is reset forgets what it had counted, and nothing that comes after."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any
from uuid import UUID, uuid4

import pytest

from controlplane.breakers.queries import offsets_of
from controlplane.breakers.service import REASON_LENGTH_MAX, reset_breaker
from controlplane.errors import InvalidInput, NotFound, NotPermitted, StaleVersion
from controlplane.ledger.models import LedgerEntryRow
from controlplane.limits.models import ScopeKind
from controlplane.limits.nesting import breaker_id
from controlplane.limits.service import set_breaker
from controlplane.limits.state import LimitState
from controlplane.limits.subjects import Scope
from controlplane.policies.snapshot import organization_snapshot
from core_rs import Engine
from tests.controlplane.conftest import member_id
from tests.controlplane.everything import everything

SECOND_NS = 1_000_000_000
MINUTE_END_NS = 61 * SECOND_NS
HOUR_END_NS = 61 * 60 * SECOND_NS


def team(org) -> Scope:
    return Scope(ScopeKind.TEAM, org.team)


def spent(org, at_ns: int, nanos: int) -> LedgerEntryRow:
    return LedgerEntryRow(
        id=uuid4(),
        organization_id=org.id,
        team_id=org.team,
        key_id=uuid4(),
        admitted_at_ns=at_ns,
        settled_at_ns=at_ns,
        cost_nanos=nanos,
        charge_nanos=nanos,
        input_tokens=1,
        output_tokens=1,
        requests=1,
        usage_source="provider",
        overrun_nanos=0,
    )


async def store(database, *rows: LedgerEntryRow) -> None:
    async with database.write() as session:
        session.add_all(rows)


async def reset(work_as, caller, org, scope: Scope, live=None, **arguments: Any) -> None:
    wanted = {"expected_version": 0, "reason": "a known import"} | arguments
    async with work_as(caller) as work:
        await reset_breaker(work, org.id, scope, live or {}, **wanted)


async def offset(database, org, scope: Scope) -> tuple[tuple[int, int], tuple[int, int]]:
    async with database.read() as session:
        row = (await offsets_of(session, org.id, [scope]))[scope]
    return row.of_window(60), row.of_window(3600)


async def windows(database, org, installation, scope: Scope) -> dict[int, dict[str, Any]]:
    settings = replace(installation.settings, breaker_minute_nanos=50, breaker_hour_nanos=500)
    async with database.read() as session:
        raw = await organization_snapshot(session, org.id, settings)
    limits = {each["id"]: each for each in json.loads(raw)["limits"]}
    return {each: limits[str(breaker_id(scope.kind, scope.id, each))] for each in (60, 3600)}


async def test_the_ledgers_sums_are_held_against_it_no_more(
    work_as, org, database, installation, clock
):
    now_ns = clock.wall_ns()
    await store(
        database, spent(org, now_ns - SECOND_NS, 40), spent(org, now_ns - 120 * SECOND_NS, 2)
    )
    await reset(work_as, org.admin, org, team(org))
    minute, hour = await offset(database, org, team(org))
    assert minute == (40, now_ns + MINUTE_END_NS)
    assert hour == (42, now_ns + HOUR_END_NS)
    found = await windows(database, org, installation, team(org))
    assert {
        seconds: (each["offset"], each["offset_until_ns"]) for seconds, each in found.items()
    } == {60: minute, 3600: hour}
    others = await windows(database, org, installation, Scope(ScopeKind.TEAM, org.other_team))
    assert not any(each.get("offset") for each in others.values())


async def test_what_enforces_it_says_what_it_had_counted(work_as, org, database, clock):
    now_ns = clock.wall_ns()
    live = {60: LimitState(7, 9, now_ns, running=3), 3600: LimitState(100, 0, now_ns)}
    await reset(work_as, org.admin, org, team(org), live)
    assert [each[0] for each in await offset(database, org, team(org))] == [10, 100]
    # Its sums are without what is not held against it: a second reset must not lose that.
    clock.advance_ns(SECOND_NS)
    live = {60: LimitState(5, 0, now_ns), 3600: LimitState(5, 0, now_ns)}
    await reset(work_as, org.admin, org, team(org), live)
    assert [each[0] for each in await offset(database, org, team(org))] == [15, 105]
    # What has ended is in no sum.
    clock.advance_ns(MINUTE_END_NS)
    await reset(work_as, org.admin, org, team(org), live)
    assert [each[0] for each in await offset(database, org, team(org))] == [5, 110]


async def test_the_engine_closes_it_and_counts_what_comes_after(
    work_as, org, database, installation, clock
):
    now_ns, mono_ns = clock.wall_ns(), clock.mono_ns()
    scope = Scope(ScopeKind.ORGANIZATION, org.id)
    async with work_as(org.admin) as work:
        await set_breaker(work, org.id, scope, minute_nanos=50, hour_nanos=None)
    engine = Engine()

    async def state(nanos: int) -> dict[str, Any]:
        async with database.read() as session:
            raw = await organization_snapshot(session, org.id, installation.settings)
        seeds = json.loads(engine.missing_counters(raw, now_ns, mono_ns))
        for each in seeds:
            each["entries"] = [[now_ns - 1, nanos]]
        engine.load_organization(raw, json.dumps(seeds).encode(), now_ns, mono_ns)
        states = json.loads(engine.limit_states(str(org.id), now_ns, mono_ns))
        return next(each for each in states if each["limit_id"] == str(_minute(org.id)))

    before = await state(60)
    assert (before["open"], before["settled"]) == (True, 60)
    live = {60: LimitState(before["settled"], 0, now_ns)}
    await reset(work_as, org.admin, org, scope, live, expected_version=1)
    after = await state(0)
    assert (after["open"], after["settled"]) == (False, 0)


def _minute(organization_id: UUID) -> UUID:
    return breaker_id(ScopeKind.ORGANIZATION, organization_id, 60)


@pytest.mark.parametrize("caller", ["billing_viewer", "team_admin", "member", "other_member"])
async def test_who_may_not_write_breakers_resets_none(work_as, org, database, caller):
    before = await everything(database)
    with pytest.raises((NotPermitted, NotFound)):
        await reset(work_as, getattr(org, caller), org, team(org))
    assert await everything(database) == before


async def test_what_cannot_be_reset_is_not(work_as, org, foreign, database):
    async with work_as(org.admin) as work:
        await set_breaker(work, org.id, team(org), minute_nanos=5, hour_nanos=None)
    before = await everything(database)
    long = "r" * (REASON_LENGTH_MAX + 1)
    refused: list[tuple[Scope, dict[str, Any], type[Exception]]] = [
        (team(org), {"expected_version": 0}, StaleVersion),
        (team(org), {"expected_version": 1, "reason": " "}, InvalidInput),
        (team(org), {"expected_version": 1, "reason": long}, InvalidInput),
        (Scope(ScopeKind.TEAM, foreign.team), {}, NotFound),
    ]
    for scope, arguments, reason in refused:
        with pytest.raises(reason):
            await reset(work_as, org.admin, org, scope, **arguments)
    assert await everything(database) == before
    await reset(work_as, org.admin, org, team(org), expected_version=1, reason=long[1:])


async def test_a_members_inherited_breaker_is_reset_too(work_as, org, database, clock):
    scope = Scope(ScopeKind.MEMBER, member_id(org.member))
    await reset(work_as, org.admin, org, scope)
    assert [each[0] for each in await offset(database, org, scope)] == [0, 0]
