"""Counters of every kind of scope and window start from what a plain model adds up."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterator
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import event

from controlplane.ids import derived_id
from controlplane.ledger import queries
from controlplane.ledger.counters import CounterSpec, LabelTallies, Scope, Use, Window
from controlplane.ledger.models import LedgerEntryRow
from controlplane.ledger.queries import BOUNDARIES_MAX, SCOPES_NAMED_MAX, counter_sums
from controlplane.tenancy.models import Organization, OrganizationState
from tests.controlplane.ledger.test_counter_sums import DAY, HOUR, MINUTE, SECOND_NS, entry, store

DAY_NS = 86_400 * SECOND_NS
NEVER_NS = 2**64 - 1
LIFETIME = {"kind": "lifetime", "starts_at_ns": 0}
DAYS = {"kind": "days", "days": 10, "anchor": "2026-01-05", "time_zone": "UTC"}
LABELS = ("feature", "agent", "end_user", "session")
WHERES = [
    None,
    {"models": ["large"], "tiers": None, "providers": None, "features": None},
    {"models": None, "tiers": ["premium", "economy"], "providers": ["one"], "features": None},
    {"models": ["small"], "tiers": None, "providers": None, "features": ["search", "chat"]},
    {"models": None, "tiers": None, "providers": None, "features": None},
]


async def organizations(database, *ids: UUID, clock) -> None:
    rows = [
        Organization(
            id=each,
            slug=f"org-{each.hex[:8]}",
            name="Org",
            currency="USD",
            time_zone="UTC",
            state=OrganizationState.ACTIVE,
            epoch=1,
            created_at=clock_instant(clock),
        )
        for each in ids
    ]
    await store(database, rows)


def clock_instant(clock):
    from datetime import UTC, datetime  # noqa: PLC0415

    return datetime.fromtimestamp(clock.wall_ns() // SECOND_NS, tz=UTC)


def scope_of(kind: str, label: str) -> dict[str, Any]:
    return {"kind": kind, "id": str(derived_id(kind, label))}


def owners(row: LedgerEntryRow) -> Iterator[tuple[str, str]]:
    """List the scopes that an entry belongs to, spelled as the engine spells them."""
    yield "organization", str(row.organization_id)
    yield "installation", str(derived_id("installation", ""))
    yield "key", str(row.key_id)
    if row.team_id:
        yield "team", str(row.team_id)
    if row.member_id:
        yield "member", str(row.member_id)
    if row.team_id and row.member_id:
        yield "member_in_team", str(derived_id("member_in_team", f"{row.member_id}/{row.team_id}"))
    for pool in filter(None, row.pools.split(",")):
        yield "pool", str(UUID(pool))
    for kind in (*LABELS, "provider"):
        if getattr(row, kind) is not None:
            yield kind, str(derived_id(kind, getattr(row, kind)))


def passes(row: LedgerEntryRow, where: dict[str, Any] | None) -> bool:
    columns = {"models": "model", "tiers": "tier", "providers": "provider", "features": "feature"}
    lists = ((columns[name], values) for name, values in (where or {}).items() if values)
    return all(getattr(row, column) in values for column, values in lists)


def amount(row: LedgerEntryRow, asked: dict[str, Any]) -> int:
    if asked["resource"] == "tokens":
        return row.input_tokens + row.output_tokens
    if asked["resource"] == "requests":
        return row.requests
    is_beyond = asked["scope"]["kind"] in {"installation", "provider"}
    return row.cost_nanos if is_beyond else row.charge_nanos


def entries(rows: list[LedgerEntryRow], asked: dict[str, Any]) -> list[list[int]]:
    start = asked["starts_at_ns"]
    if asked["window"]["kind"] != "rolling":
        within = [row for row in rows if start <= row.admitted_at_ns < asked["ends_at_ns"]]
        return [[start, sum(amount(row, asked) for row in within)]]
    instant = "admitted_at_ns" if asked["resource"] == "requests" else "settled_at_ns"
    buckets: dict[int, list[int]] = defaultdict(lambda: [0, 0])
    for row in rows:
        at_ns = getattr(row, instant)
        if at_ns >= start:
            bucket = buckets[(at_ns - start) // (asked["window"]["seconds"] * SECOND_NS // 60)]
            bucket[:] = [max(bucket[0], at_ns), bucket[1] + amount(row, asked)]
    return [buckets[index] for index in sorted(buckets)]


def by_hand(rows: list[LedgerEntryRow], organization_id: UUID, asked: dict[str, Any]):
    scope = asked["scope"]
    is_beyond = scope["kind"] in {"installation", "provider"}
    mine = [
        row
        for row in rows
        if (is_beyond or row.organization_id == organization_id) and passes(row, asked["where"])
    ]
    if not scope.get("each"):
        named = [row for row in mine if (scope["kind"], scope["id"]) in set(owners(row))]
        return {"entries": entries(named, asked)}
    by_label: dict[str, list[LedgerEntryRow]] = defaultdict(list)
    for row in mine:
        if getattr(row, scope["kind"]) is not None:
            by_label[getattr(row, scope["kind"])].append(row)
    labels = {label: entries(found, asked) for label, found in by_label.items()}
    return {
        "labels": {
            label: found for label, found in labels.items() if sum(each for _, each in found)
        },
        "rest": entries([], asked),
    }


def windows(now: int) -> list[tuple[dict[str, Any], int, int]]:
    return [
        (MINUTE, now - 61 * SECOND_NS, now),
        (HOUR, now - 61 * 60 * SECOND_NS, now),
        (DAY, now - 9 * 3600 * SECOND_NS, now + 15 * 3600 * SECOND_NS),
        (DAY | {"time_zone": "Asia/Tokyo"}, now - 3600 * SECOND_NS, now + 23 * 3600 * SECOND_NS),
        (DAYS, now - 3 * DAY_NS, now + 7 * DAY_NS),
        (LIFETIME, 0, NEVER_NS),
        (LIFETIME | {"starts_at_ns": now - DAY_NS}, now - DAY_NS, NEVER_NS),
    ]


@pytest.mark.parametrize("seed", [1, 2, 3, 4])
async def test_every_scope_and_window_equals_a_plain_model(database, organization_id, clock, seed):
    draw = random.Random(seed)
    now, other = clock.wall_ns(), uuid4()
    await organizations(database, organization_id, other, clock=clock)
    keys = [uuid4() for _ in range(3)]
    teams, members, pools = [None, uuid4(), uuid4()], [None, uuid4(), uuid4()], [uuid4(), uuid4()]
    edges = [at + off for _, *ends in windows(now) for at in ends for off in (-1, 0, 1)]
    edges = [at for at in edges if 0 <= at < 2**63]
    rows = []
    for index in range(250):
        ago_ns = int(draw.expovariate(1) * draw.choice([30, 3600, 86_400, 864_000])) * SECOND_NS
        admitted = edges[index] if index < len(edges) else now - ago_ns
        labels = {kind: draw.choice([None, "search", "chat", "Ä"]) for kind in LABELS}
        chosen = sorted(draw.sample(pools, draw.randrange(3)))
        rows.append(
            entry(
                draw.choice([organization_id, organization_id, other]),
                admitted,
                settled_at_ns=min(admitted + draw.choice([0, 5 * SECOND_NS]), 2**63 - 1),
                key_id=draw.choice(keys),
                team_id=draw.choice(teams),
                member_id=draw.choice(members),
                model=draw.choice(["large", "small", None]),
                provider=draw.choice(["one", "two", None]),
                tier=draw.choice(["premium", "economy", None]),
                pools=",".join(each.hex for each in chosen),
                charge_nanos=draw.randrange(2**40),
                cost_nanos=draw.randrange(2**40),
                **labels,
            )
        )
    scopes = [{"kind": "organization", "id": str(organization_id)}, scope_of("installation", "")]
    scopes += [{"kind": "key", "id": str(each)} for each in [*keys, uuid4()]]
    scopes += [{"kind": "team", "id": str(each)} for each in teams if each]
    scopes += [{"kind": "member", "id": str(each)} for each in members if each]
    scopes += [{"kind": "pool", "id": str(each)} for each in pools]
    scopes += [scope_of("provider", each) for each in ("one", "three")]
    scopes += [scope_of("member_in_team", f"{members[1]}/{each}") for each in teams if each]
    scopes += [scope_of(kind, label) for kind in LABELS for label in ("search", "Ä", "none")]
    scopes += [{"kind": kind, "each": True} for kind in LABELS]
    specs = [
        {
            "scope": scope,
            "where": where,
            "resource": resource,
            "window": window,
            "starts_at_ns": start,
            "ends_at_ns": end,
        }
        for scope in scopes
        for window, start, end in windows(now)
        for where in WHERES
        for resource in ("spend", "requests", "tokens")
        if draw.random() < 0.4
    ]
    expected = [by_hand(rows, organization_id, asked) for asked in specs]
    await store(database, rows)
    async with database.read() as session:
        seeds = await counter_sums(session, organization_id, specs)
    for asked, want, got in zip(specs, expected, seeds, strict=True):
        assert {name: got[name] for name in asked} == asked
        found = {name: got[name] for name in got if name not in asked}
        if "labels" in found:
            sums = [sum(each for _, each in label["entries"]) for label in found["labels"]]
            assert sums == sorted(sums, reverse=True)
            found["labels"] = {each["label"]: each["entries"] for each in found["labels"]}
        assert found == want, asked


def asked_of(scope: dict[str, Any], window: dict[str, Any], start: int, end: int) -> dict[str, Any]:
    return {
        "scope": scope,
        "where": None,
        "resource": "spend",
        "window": window,
        "starts_at_ns": start,
        "ends_at_ns": end,
    }


async def count_queries(database, organization_id, specs) -> int:
    statements: list[str] = []

    def count(_connection, _cursor, statement, *_: Any) -> None:
        statements.append(statement)

    async with database.read() as session:
        engine = (await session.connection()).sync_connection.engine
        event.listen(engine, "before_cursor_execute", count)
        try:
            await counter_sums(session, organization_id, specs)
        finally:
            event.remove(engine, "before_cursor_execute", count)
    return len(statements)


async def test_queries_are_bounded_by_windows_and_kinds(database, organization_id, clock):
    now = clock.wall_ns()

    def specs(count: int) -> list[dict[str, Any]]:
        scopes = [
            {"kind": kind, "id": str(uuid4())}
            for kind in ("key", "team", "member", "pool", "feature", "session", "provider")
            for _ in range(count)
        ]
        return [asked_of(scope, *window) for scope in scopes for window in windows(now)]

    # Path, pool, feature, session and provider; minute, hour, calendar, days and lifetime.
    assert await count_queries(database, organization_id, specs(1)) == 25
    assert await count_queries(database, organization_id, specs(40)) == 25


@pytest.mark.parametrize("keys", [SCOPES_NAMED_MAX, SCOPES_NAMED_MAX + 1])
async def test_so_many_scopes_are_named_and_of_more_all_are_read(
    database, organization_id, clock, keys
):
    now = clock.wall_ns()
    ids = [uuid4() for _ in range(keys)]
    rows = [
        entry(organization_id, now, key_id=each, charge_nanos=7) for each in (*ids[:2], uuid4())
    ]
    await store(database, rows)
    specs = [asked_of({"kind": "key", "id": str(each)}, LIFETIME, 0, NEVER_NS) for each in ids]
    async with database.read() as session:
        seeds = await counter_sums(session, organization_id, specs)
    assert [each["entries"] for each in seeds] == [[[0, 7]]] * 2 + [[[0, 0]]] * (keys - 2)


async def test_starts_beyond_so_many_take_another_query(database, organization_id, clock):
    now = clock.wall_ns()
    rows = [entry(organization_id, now - index, charge_nanos=1 << index) for index in range(1, 41)]
    await store(database, rows)
    scope = {"kind": "organization", "id": str(organization_id)}

    def lives(count: int) -> list[dict[str, Any]]:
        starts = (now - index for index in range(1, count + 1))
        return [asked_of(scope, LIFETIME, start, NEVER_NS) for start in starts]

    assert await count_queries(database, organization_id, lives(BOUNDARIES_MAX - 1)) == 1
    assert await count_queries(database, organization_id, lives(BOUNDARIES_MAX)) == 2
    async with database.read() as session:
        seeds = await counter_sums(session, organization_id, lives(70))
    assert [each["entries"][0][1] for each in seeds] == [
        2 ** (min(index, 40) + 1) - 2 for index in range(1, 71)
    ]


async def test_an_entry_of_a_removed_label_counts_for_nobody(database, organization_id, clock):
    await store(database, [entry(organization_id, clock.wall_ns(), session=None)])
    asked = asked_of({"kind": "session", "each": True}, LIFETIME, 0, NEVER_NS)
    async with database.read() as session:
        [seed] = await counter_sums(session, organization_id, [asked])
    assert (seed["labels"], seed["rest"]) == ([], [[0, 0]])


async def test_a_gauge_is_refused(database, organization_id):
    asked = asked_of({"kind": "key", "id": str(uuid4())}, {"kind": "now"}, 0, 1)
    async with database.read() as session:
        with pytest.raises(queries.msgspec.ValidationError):
            await counter_sums(session, organization_id, [asked])


def test_labels_beyond_the_most_are_the_smallest_and_add_up():
    counter = CounterSpec(Scope("session", each=True), "spend", Window("rolling", 60), 0, 10)
    tallies = LabelTallies(counter, labels_max=2)
    uses = [("a", 5, 1), ("a", 1, 2 * SECOND_NS), ("b", 9, 1), ("c", 2, 3), ("d", 6, SECOND_NS)]
    for label, nanos, at_ns in uses:
        tallies.add(label, Use((), {}, at_ns, {"spend": nanos}))
    # Of equal sums the first label is told: "a" and "d" both have 6.
    assert tallies.seed() == {
        "labels": [
            {"label": "b", "entries": [[1, 9]]},
            {"label": "a", "entries": [[1, 5], [2 * SECOND_NS, 1]]},
        ],
        "rest": [[3, 2], [SECOND_NS, 6]],
    }
