"""What the engine asks for is understood, and what it gets is taken as the start of its counters."""

from __future__ import annotations

import json
from typing import Any
from uuid import UUID, uuid4

from controlplane.canonical import canonical_hash, canonical_json
from controlplane.ids import derived_id
from controlplane.ledger.queries import counter_sums
from core_rs import Engine
from tests.controlplane.ledger.test_counter_sums import SECOND_NS, entry, store

WINDOWS: list[dict[str, Any]] = [
    {"kind": "rolling", "seconds": 60},
    {"kind": "rolling", "seconds": 3600},
    {"kind": "calendar", "period": "month", "time_zone": "Europe/Berlin"},
    {"kind": "days", "days": 10, "anchor": "2026-01-05", "time_zone": "UTC"},
    {"kind": "lifetime", "starts_at_ns": 0},
]
LABELS = ("feature", "agent", "end_user", "session")


def limit(scope: dict[str, Any], window: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {
        "id": str(uuid4()),
        "kind": "budget",
        "scope": scope,
        "where": None,
        "resource": "spend",
        "window": window,
        "cap": 1_000_000,
        "mode": "hard",
        "hold": "bound",
        "steps": [],
        "cooldown_s": None,
        "offset": 0,
        "offset_until_ns": None,
        "from_ns": None,
        "until_ns": None,
        **fields,
    }


def snapshot(organization_id: UUID, limits: list[dict[str, Any]]) -> bytes:
    content: dict[str, Any] = {
        "organization_id": str(organization_id),
        "state": "active",
        "currency": "USD",
        "charging": {
            "rates": [{"from_ns": 0, "picos": 10**12}],
            "markup_ppm": 0,
            "fee_nanos": 0,
        },
        "limits": sorted(limits, key=lambda each: each["id"]),
        "rules": [],
    }
    return canonical_json({**content, "version": canonical_hash(content)})


async def test_every_counter_the_engine_asks_for_starts_from_the_ledger(
    database, organization_id, clock
):
    now_ns, mono_ns = clock.wall_ns(), clock.mono_ns()
    key, team, member, pool = (uuid4() for _ in range(4))
    row = entry(
        organization_id,
        now_ns - SECOND_NS,
        charge_nanos=7,
        key_id=key,
        team_id=team,
        member_id=member,
        pools=pool.hex,
        **dict.fromkeys(LABELS, "ä"),
    )
    await store(database, [row])
    scopes: list[dict[str, Any]] = [
        {"kind": "organization", "id": str(organization_id)},
        {"kind": "key", "id": str(key)},
        {"kind": "team", "id": str(team)},
        {"kind": "member", "id": str(member)},
        {"kind": "pool", "id": str(pool)},
        {
            "kind": "member_in_team",
            "id": str(derived_id("member_in_team", f"{member}/{team}")),
        },
        *({"kind": kind, "id": str(derived_id(kind, "ä"))} for kind in LABELS),
        *({"kind": kind, "each": True} for kind in LABELS),
    ]
    limits = [limit(scope, window) for scope in scopes for window in WINDOWS]
    gauge = {"kind": "concurrency", "resource": "concurrency"}
    limits.append(limit(scopes[0], {"kind": "now"}, **gauge))
    raw, engine = snapshot(organization_id, limits), Engine()
    specs = json.loads(engine.missing_counters(raw, now_ns, mono_ns))
    assert len(specs) == len(limits) - 1
    async with database.read() as session:
        seeds = await counter_sums(session, organization_id, specs)
    engine.load_organization(raw, canonical_json(seeds), now_ns, mono_ns)
    assert engine.missing_counters(raw, now_ns, mono_ns) == b"[]"
    states = json.loads(engine.limit_states(str(organization_id), now_ns, mono_ns))
    settled = {each["limit_id"]: each["settled"] for each in states}
    named = [each["id"] for each in limits if "id" in each["scope"] and each["kind"] == "budget"]
    assert len(named) == 50
    assert {settled[each] for each in named} == {7}
    templates = [each for seed, each in zip(seeds, specs, strict=True) if "labels" in seed]
    assert len(templates) == 20
