"""Every kind of limit in the snapshot, as the engine reads it."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime

import pytest

from controlplane.authz import SYSTEM
from controlplane.clock import nanoseconds
from controlplane.limits.asked import WindowAsked
from controlplane.limits.installation import set_installation_limit
from controlplane.limits.labels import label_id
from controlplane.limits.models import Hold, Mode, Period, Resource, ScopeKind
from controlplane.limits.service import set_concurrency_limit, set_rate_limit, upsert_budget
from controlplane.limits.steps import Step, StepAction
from controlplane.limits.subjects import Scope, labelled, member_in_team
from controlplane.policies.snapshot import installation_snapshot, organization_snapshot
from controlplane.pools.service import create_pool
from core_rs import Engine
from tests.controlplane.conftest import member_id


@pytest.fixture
def upsert(work_as, org):
    async def change(scope, cap_nanos=5, **more):
        async with work_as(org.admin) as work:
            return await upsert_budget(work, org.id, scope, cap_nanos=cap_nanos, **more)

    return change


@pytest.fixture
def limits(database, org, installation):
    """Write the snapshot, have the engine read it, and give its limits by id and beginning."""

    async def read() -> dict[tuple[str, int | None], dict]:
        async with database.read() as session:
            raw = await organization_snapshot(session, org.id, installation.settings)
        Engine().load_organization(raw, seeds_of(raw, installation.clock), *now(installation))
        return {(each["id"], each["from_ns"]): each for each in json.loads(raw)["limits"]}

    return read


def now(installation) -> tuple[int, int]:
    return installation.clock.wall_ns(), installation.clock.mono_ns()


def seeds_of(raw: bytes, clock) -> bytes:
    """Seed every counter with nothing."""
    specs = json.loads(Engine().missing_counters(raw, clock.wall_ns(), clock.mono_ns()))
    for spec in specs:
        nothing = {"labels": [], "rest": []} if spec["scope"].get("each") else {"entries": []}
        spec.update(nothing)
    return json.dumps(specs).encode()


async def test_every_scope_and_window_is_read_by_the_engine(upsert, limits, work_as, org) -> None:
    async with work_as(org.admin) as work:
        pool = await create_pool(work, org.id, name="Research")
    label = f"{member_id(org.member)}/{org.team}"
    windows = [
        (WindowAsked(period=Period.WEEK), {"kind": "calendar", "period": "week"}),
        (
            WindowAsked(days=7, anchor=date(2026, 1, 31)),
            {"kind": "days", "days": 7, "anchor": "2026-01-31"},
        ),
        (WindowAsked(is_lifetime=True), {"kind": "lifetime", "starts_at_ns": 0}),
    ]
    scopes = [
        (Scope(ScopeKind.ORGANIZATION, org.id), str(org.id)),
        (Scope(ScopeKind.POOL, pool.id), str(pool.id)),
        (
            member_in_team(member_id(org.member), org.team),
            str(label_id(ScopeKind.MEMBER_IN_TEAM, label)),
        ),
        (labelled(ScopeKind.SESSION, "s-1"), str(label_id(ScopeKind.SESSION, "s-1"))),
        (labelled(ScopeKind.END_USER, None), None),
    ]
    made = {}
    for scope, scope_id in scopes:
        for asked, form in windows:
            row = await upsert(scope, window=asked)
            zone = {} if asked.is_lifetime else {"time_zone": "Europe/Berlin"}
            made[str(row.id)] = (scope.kind.value, scope_id, {**form, **zone})
    found = await limits()
    assert len(found) == len(made) == 15
    for (limit_id, from_ns), each in found.items():
        kind, scope_id, window = made[limit_id]
        scope = {"kind": kind, "each": True} if scope_id is None else {"kind": kind, "id": scope_id}
        assert (each["scope"], each["window"], from_ns) == (scope, window, None)


async def test_terms_are_written_in_full(upsert, limits, org) -> None:
    steps = [Step(80, StepAction.NOTIFY), Step(100, StepAction.DOWNGRADE, model="m")]
    row = await upsert(
        Scope(ScopeKind.TEAM, org.team),
        period=Period.DAY,
        mode=Mode.SOFT,
        where={"tiers": ["premium"], "models": ["b", "a"]},
        changes={"hold": Hold.BOUND, "steps": steps, "cooldown_s": 900},
    )
    assert (await limits())[str(row.id), None] == {
        "id": str(row.id),
        "kind": "budget",
        "scope": {"kind": "team", "id": str(org.team)},
        "where": {"models": ["a", "b"], "tiers": ["premium"], "providers": None, "features": None},
        "resource": "spend",
        "window": {"kind": "calendar", "period": "day", "time_zone": "Europe/Berlin"},
        "cap": 5,
        "mode": "soft",
        "hold": "bound",
        "steps": [
            {"percent": 80, "action": "notify"},
            {"percent": 100, "action": "downgrade", "model": "m"},
        ],
        "cooldown_s": 900,
        "offset": 0,
        "offset_until_ns": None,
        "from_ns": None,
        "until_ns": None,
    }


async def test_a_changed_window_is_two_limits_that_meet_at_the_boundary(
    upsert, limits, org, clock
) -> None:
    scope = Scope(ScopeKind.ORGANIZATION, org.id)
    made = await upsert(scope, period=Period.DAY)
    await upsert(scope, 7, period=Period.DAY, time_zone="Asia/Taipei", expected_version=1)
    boundary_ns = nanoseconds(datetime(2026, 3, 14, 23, tzinfo=UTC))
    before = await limits()
    name = str(made.id)
    old, new = before[name, None], before[name, boundary_ns]
    assert (old["until_ns"], new["until_ns"]) == (boundary_ns, None)
    assert [each["window"]["time_zone"] for each in (old, new)] == ["Europe/Berlin", "Asia/Taipei"]
    assert [each["cap"] for each in (old, new)] == [7, 7]
    # What was written does not depend on when it is written.
    clock.advance_ns(86_400 * 10**9)
    assert await limits() == before
    await upsert(scope, 8, period=Period.DAY, expected_version=2)
    assert [(key, each["until_ns"]) for key, each in (await limits()).items()] == [
        ((name, None), None)
    ]


async def test_gauges_and_rates_of_any_scope_are_read(limits, work_as, org) -> None:
    team, where = Scope(ScopeKind.TEAM, org.team), {"providers": ["openai"]}
    async with work_as(org.admin) as work:
        await set_concurrency_limit(work, org.id, team, requests_max=3)
        await set_rate_limit(
            work, org.id, team, requests_per_minute=9, tokens_per_minute=8, where=where
        )
    found = [
        (each["kind"], each["resource"], each["window"], each["cap"], each["mode"])
        for each in (await limits()).values()
    ]
    minute = {"kind": "rolling", "seconds": 60}
    assert sorted(found, key=str) == [
        ("concurrency", "concurrency", {"kind": "now"}, 3, "hard"),
        ("rate", "requests", minute, 9, "hard"),
        ("rate", "tokens", minute, 8, "metered"),
    ]


async def test_limits_of_the_installation_are_a_snapshot_of_their_own(
    work_as, org, database, installation
) -> None:
    async with database.read() as session:
        empty = json.loads(await installation_snapshot(session))
    async with work_as(SYSTEM) as work:
        rpm = await set_installation_limit(
            work, provider="openai", resource=Resource.REQUESTS, cap=500
        )
        spend = await set_installation_limit(
            work, provider=None, resource=Resource.SPEND, cap=9, period=Period.MONTH
        )
    async with database.read() as session:
        raw = await installation_snapshot(session)
        policy = json.loads(await organization_snapshot(session, org.id, installation.settings))
    found = json.loads(raw)
    assert (set(found), empty["limits"], policy["limits"]) == ({"version", "limits"}, [], [])
    assert found["version"] != empty["version"]
    assert {each["id"]: each["scope"] for each in found["limits"]} == {
        str(rpm.id): {"kind": "provider", "id": str(label_id(ScopeKind.PROVIDER, "openai"))},
        str(spend.id): {
            "kind": "installation",
            "id": str(label_id(ScopeKind.INSTALLATION, "")),
        },
    }
    specs = json.loads(Engine().missing_shared(raw, *now(installation)))
    seeds = json.dumps([{**each, "entries": []} for each in specs]).encode()
    Engine().load_shared(raw, seeds, *now(installation))
