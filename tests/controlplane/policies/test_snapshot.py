"""Snapshots: exactly what the engine reads, with a version that follows the content."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from hashlib import sha256
from uuid import UUID, uuid4

import pytest
from sqlalchemy import event

from controlplane.errors import InvalidInput
from controlplane.keys.models import VirtualKey
from controlplane.keys.secret import digest
from controlplane.keys.service import NewKey, create_key, revoke_key
from controlplane.limits.models import Mode, Period, ScopeKind
from controlplane.limits.nesting import breaker_id
from controlplane.limits.service import set_breaker, upsert_budget
from controlplane.limits.subjects import Scope
from controlplane.policies.service import set_rule
from controlplane.policies.snapshot import keys_snapshot, organization_snapshot
from controlplane.tenancy.models import CostCenter, Member, Team
from core_rs import Engine
from tests.controlplane.conftest import member_id


async def snapshot_of(database, org, settings):
    async with database.read() as session:
        return await organization_snapshot(session, org.id, settings)


async def test_the_snapshot_has_exactly_the_agreed_shape(work_as, org, database, installation):
    new = NewKey("ci", allowed_models=("gpt-4o-mini",), requests_per_minute=10, tokens_per_minute=9)
    async with work_as(org.admin) as work:
        key = (await create_key(work, org.id, new, idempotency_key="1")).key
        budget = await upsert_budget(
            work, org.id, Scope(ScopeKind.TEAM, org.team), period=Period.MONTH, cap_nanos=5
        )
        scope = Scope(ScopeKind.ORGANIZATION, org.id)
        await set_breaker(work, org.id, scope, minute_nanos=7, hour_nanos=None)
    raw = await snapshot_of(database, org, installation.settings)
    found = json.loads(raw)
    version = found.pop("version")
    canonical = json.dumps(found, sort_keys=True, separators=(",", ":")).encode()
    assert version == sha256(canonical).hexdigest()
    assert {name: found[name] for name in ("organization_id", "state", "currency")} == {
        "organization_id": str(org.id),
        "state": "active",
        "currency": "USD",
    }
    assert found["charging"] == {
        "rates": [{"from_ns": 0, "picos": 10**12}],
        "markup_ppm": 0,
        "fee_nanos": 0,
    }
    [rule] = found["rules"]
    assert (rule["scope"], rule["models"]) == (
        {"kind": "key", "id": str(key.id)},
        ["gpt-4o-mini"],
    )
    limits = {each["id"]: each for each in found["limits"]}
    assert limits[str(budget.id)] == {
        "id": str(budget.id),
        "kind": "budget",
        "scope": {"kind": "team", "id": str(org.team)},
        "where": None,
        "resource": "spend",
        "window": {"kind": "calendar", "period": "month", "time_zone": "Europe/Berlin"},
        "cap": 5,
        "mode": "hard",
        "hold": "expected",
        "steps": [],
        "cooldown_s": None,
        "offset": 0,
        "offset_until_ns": None,
        "from_ns": None,
        "until_ns": None,
    }
    rates = [
        (each["resource"], each["window"], each["cap"], each["mode"])
        for each in found["limits"]
        if each["kind"] == "rate"
    ]
    window = {"kind": "rolling", "seconds": 60}
    assert sorted(rates, key=str) == [
        ("requests", window, 10, "hard"),
        ("tokens", window, 9, "metered"),
    ]
    breakers = [each for each in found["limits"] if each["kind"] == "breaker"]
    # Organization, two teams and five members inherit the organization's minute.
    assert len(breakers) == 8
    assert {(each["cap"], each["window"]["seconds"], each["mode"]) for each in breakers} == {
        (7, 60, "metered")
    }
    assert str(breaker_id(ScopeKind.TEAM, org.team, 60)) in limits
    assert [each["id"] for each in found["limits"]] == sorted(limits)


async def test_the_version_changes_with_the_content_and_comes_back_with_it(
    work_as, org, database, installation
):
    async def version() -> str:
        return json.loads(await snapshot_of(database, org, installation.settings))["version"]

    scope = Scope(ScopeKind.ORGANIZATION, org.id)
    empty = await version()
    async with work_as(org.admin) as work:
        await set_rule(work, org.id, scope, {"models": ["a"]})
    narrowed = await version()
    async with work_as(org.admin) as work:
        await set_rule(work, org.id, scope, {"models": None}, expected_version=1)
    assert empty != narrowed
    assert await version() == empty


async def test_the_installations_default_reaches_every_scope(org, database, installation):
    settings = replace(installation.settings, breaker_hour_nanos=3)
    found = json.loads(await snapshot_of(database, org, settings))
    assert [(each["cap"], each["window"]["seconds"]) for each in found["limits"]] == [(3, 3600)] * 8


async def test_a_soft_budget_says_so(work_as, org, database, installation):
    scope = Scope(ScopeKind.ORGANIZATION, org.id)
    async with work_as(org.admin) as work:
        await upsert_budget(
            work, org.id, scope, period=Period.DAY, cap_nanos=1, mode=Mode.SOFT, time_zone="UTC"
        )
    found = json.loads(await snapshot_of(database, org, installation.settings))
    assert [(each["mode"], each["window"]["time_zone"]) for each in found["limits"]] == [
        ("soft", "UTC")
    ]


async def test_keys_carry_digests_until_they_are_revoked(work_as, org, database, installation):
    expires_at = datetime(2026, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC)
    new = NewKey("ci", team_id=org.team, expires_at=expires_at)
    async with work_as(org.admin) as work:
        created = await create_key(work, org.id, new, idempotency_key="1")
        other = await create_key(work, org.id, NewKey("other"), idempotency_key="2")
    async with database.read() as session:
        raw = await keys_snapshot(session, org.id, [created.key.id])
        everything = json.loads(await keys_snapshot(session, org.id))
    assert json.loads(raw) == [
        {
            "id": str(created.key.id),
            "organization_id": str(org.id),
            "team_id": str(org.team),
            "member_id": None,
            "cost_center_id": None,
            "pools": [],
            "state": "active",
            "expires_at_ns": 1_798_761_599_999_999_000,
            "secrets": [
                {
                    "digest": digest(created.secret, installation.pepper).hex(),
                    "expires_at_ns": None,
                }
            ],
        }
    ]
    assert {each["id"] for each in everything} == {str(created.key.id), str(other.key.id)}
    async with work_as(org.admin) as work:
        await revoke_key(work, org.id, created.key.id)
    async with database.read() as session:
        revoked = json.loads(await keys_snapshot(session, org.id, [created.key.id]))
    assert [(each["state"], each["secrets"]) for each in revoked] == [("revoked", [])]


async def put_cost_centers(database, org, **places) -> dict[str, UUID]:
    """Make a cost center for each place given, and book the place on it."""
    made = {}
    async with database.write() as session:
        for name, (model, row_id) in places.items():
            row = await session.get(model, row_id)
            made[name] = uuid4()
            center = CostCenter(
                id=made[name],
                organization_id=org.id,
                code=name,
                name=name,
                created_at=row.created_at,
                archived_at=None,
            )
            session.add(center)
            await session.flush()
            row.cost_center_id = made[name]
    return made


async def cost_center_of(database, org, key_id) -> str | None:
    async with database.read() as session:
        [key] = json.loads(await keys_snapshot(session, org.id, [key_id]))
    return key["cost_center_id"]


async def test_the_cost_center_is_the_keys_else_its_owners_else_its_teams(work_as, org, database):
    owner = member_id(org.member)
    new = NewKey("ci", team_id=org.team, member_id=owner)
    async with work_as(org.admin) as work:
        key = (await create_key(work, org.id, new, idempotency_key="1")).key
    assert await cost_center_of(database, org, key.id) is None
    team = await put_cost_centers(database, org, team=(Team, org.team))
    assert await cost_center_of(database, org, key.id) == str(team["team"])
    member = await put_cost_centers(database, org, member=(Member, owner))
    assert await cost_center_of(database, org, key.id) == str(member["member"])
    own = await put_cost_centers(database, org, key=(VirtualKey, key.id))
    assert await cost_center_of(database, org, key.id) == str(own["key"])


async def test_a_key_takes_no_cost_center_of_places_it_is_not_in(work_as, org, database):
    async with work_as(org.admin) as work:
        bare = await create_key(work, org.id, NewKey("bare"), idempotency_key="1")
        other = NewKey("other", team_id=org.other_team)
        placed = await create_key(work, org.id, other, idempotency_key="2")
    owner = member_id(org.member)
    await put_cost_centers(database, org, team=(Team, org.team), member=(Member, owner))
    assert await cost_center_of(database, org, bare.key.id) is None
    assert await cost_center_of(database, org, placed.key.id) is None


async def test_cost_centers_need_no_query_for_each_key(work_as, org, database):
    async def statements() -> int:
        seen = []
        engine = database._readers.sync_engine

        def count(*_arguments) -> None:
            seen.append(1)

        event.listen(engine, "before_cursor_execute", count)
        try:
            async with database.read() as session:
                await keys_snapshot(session, org.id)
        finally:
            event.remove(engine, "before_cursor_execute", count)
        return len(seen)

    async def create(count: int, prefix: str) -> None:
        async with work_as(org.admin) as work:
            for number in range(count):
                new = NewKey(f"{prefix}{number}", team_id=org.team)
                await create_key(work, org.id, new, idempotency_key=f"{prefix}{number}")

    await create(1, "a")
    one = await statements()
    await create(9, "b")
    assert await statements() == one > 0


async def test_an_organization_sees_nothing_of_another(work_as, org, foreign, database):
    async with work_as(foreign.admin) as work:
        key = (await create_key(work, foreign.id, NewKey("ci"), idempotency_key="1")).key
    async with database.read() as session:
        assert await keys_snapshot(session, org.id, [key.id]) == b"[]"


async def test_an_expiry_beyond_what_the_engine_counts_never_comes(work_as, org, database):
    new = NewKey("ci", expires_at=datetime(9999, 12, 31, tzinfo=UTC))
    async with work_as(org.admin) as work:
        await create_key(work, org.id, new, idempotency_key="1")
    async with database.read() as session:
        keys = await keys_snapshot(session, org.id)
    assert [each["expires_at_ns"] for each in json.loads(keys)] == [2**64 - 1]
    assert Engine().load_keys(keys) == 1


@pytest.mark.parametrize(("name", "fits"), [("é" * 100, True), ("é" * 100 + "x", False)])
async def test_a_model_name_is_no_longer_than_the_engine_reads(
    work_as, org, database, installation, name, fits
):
    async def allow() -> None:
        async with work_as(org.team_admin) as work:
            scope = Scope(ScopeKind.TEAM, org.team)
            await set_rule(work, org.id, scope, {"models": [name]})

    if fits:
        await allow()
    else:
        with pytest.raises(InvalidInput):
            await allow()
    raw = await snapshot_of(database, org, installation.settings)
    assert [each["models"] for each in json.loads(raw)["rules"]] == ([[name]] if fits else [])
    Engine().load_organization(raw, b"[]", installation.clock.wall_ns(), 0)
