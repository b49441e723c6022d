"""What a counter starts from equals an independent sum over the same entries."""

from __future__ import annotations

import random
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import event

from controlplane.db import Database
from controlplane.ledger.models import LedgerEntryRow
from controlplane.ledger.queries import charge_totals, counter_sums

SECOND_NS = 1_000_000_000
MINUTE = {"kind": "rolling", "seconds": 60}
HOUR = {"kind": "rolling", "seconds": 3600}
DAY = {"kind": "calendar", "period": "day", "time_zone": "UTC"}
MONTH = {"kind": "calendar", "period": "month", "time_zone": "UTC"}
WHERES = [
    None,
    {"models": ["large"], "providers": []},
    {"models": ["large", "small"], "providers": ["one"]},
    {"models": [], "providers": []},
]


def entry(organization_id: UUID, admitted_at_ns: int, **fields: Any) -> LedgerEntryRow:
    facts: dict[str, Any] = {
        "id": uuid4(),
        "organization_id": organization_id,
        "key_id": uuid4(),
        "admitted_at_ns": admitted_at_ns,
        "settled_at_ns": admitted_at_ns,
        "cost_nanos": 0,
        "charge_nanos": 1,
        "input_tokens": 10,
        "output_tokens": 100,
        "requests": 1,
        "usage_source": "provider",
        "overrun_nanos": 0,
    }
    return LedgerEntryRow(**(facts | fields))


def spec(
    kind: str, owner: UUID, resource: str, window: dict[str, Any], start: int, end: int, where=None
):
    return {
        "scope": {"kind": kind, "id": str(owner)},
        "where": where,
        "resource": resource,
        "window": window,
        "starts_at_ns": start,
        "ends_at_ns": end,
    }


async def store(database: Database, rows: list[LedgerEntryRow]) -> None:
    async with database.write() as session:
        session.add_all(rows)


async def sums(database: Database, organization_id: UUID, specs: list[dict[str, Any]]):
    async with database.read() as session:
        seeds = await counter_sums(session, organization_id, specs)
    assert [{**seed, "entries": None} for seed in seeds] == [{**s, "entries": None} for s in specs]
    return [seed["entries"] for seed in seeds]


def counted(row: LedgerEntryRow, asked: dict[str, Any]) -> bool:
    column = {"organization": "organization_id"}.get(
        asked["scope"]["kind"], asked["scope"]["kind"] + "_id"
    )
    where = asked["where"] or {"models": [], "providers": []}
    return (
        str(getattr(row, column)) == asked["scope"]["id"]
        and row.model in (where["models"] or [row.model])
        and row.provider in (where["providers"] or [row.provider])
    )


def amount(row: LedgerEntryRow, resource: str) -> int:
    if resource == "spend":
        return row.charge_nanos
    return row.input_tokens + row.output_tokens if resource == "tokens" else 1


def by_hand(rows: list[LedgerEntryRow], asked: dict[str, Any]) -> list[list[int]]:
    start, end = asked["starts_at_ns"], asked["ends_at_ns"]
    mine = [row for row in rows if counted(row, asked)]
    if asked["window"]["kind"] == "calendar":
        within = [row for row in mine if start <= row.admitted_at_ns < end]
        return [[start, sum(amount(row, asked["resource"]) for row in within)]]
    when = "admitted_at_ns" if asked["resource"] == "requests" else "settled_at_ns"
    size = asked["window"]["seconds"] * SECOND_NS // 60
    buckets: dict[int, list[LedgerEntryRow]] = {}
    for row in mine:
        if getattr(row, when) >= start:
            buckets.setdefault((getattr(row, when) - start) // size, []).append(row)
    return [
        [
            max(getattr(row, when) for row in buckets[index]),
            sum(amount(row, asked["resource"]) for row in buckets[index]),
        ]
        for index in sorted(buckets)
    ]


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_sums_equal_an_independent_sum(database, organization_id, clock, seed):
    draw = random.Random(seed)
    now = clock.wall_ns()
    keys = [(uuid4(), draw.choice([None, uuid4()]), uuid4()) for _ in range(5)]
    spans = [
        (MINUTE, now - 61 * SECOND_NS, now),
        (HOUR, now - 61 * 60 * SECOND_NS, now),
        (DAY, now - 9 * 3600 * SECOND_NS, now + 15 * 3600 * SECOND_NS),
        (MONTH, now - 300 * 3600 * SECOND_NS, now + 400 * 3600 * SECOND_NS),
    ]
    edges = [edge + off for _, *ends in spans for edge in ends for off in (-1, 0, 1)]
    rows = []
    for index in range(300):
        key, team, member = draw.choice(keys)
        near = now - int(draw.expovariate(1) * draw.choice([30, 3600, 86_400]) * SECOND_NS)
        admitted = edges[index] if index < len(edges) else near
        rows.append(
            entry(
                draw.choice([organization_id, organization_id, uuid4()]),
                admitted,
                settled_at_ns=admitted + draw.choice([0, 1, 5 * SECOND_NS]),
                key_id=key,
                team_id=team,
                member_id=member,
                model=draw.choice(["large", "small", None]),
                provider=draw.choice(["one", "two"]),
                charge_nanos=draw.randrange(2**40),
            )
        )
    owners = [("organization", organization_id)]
    for key, team, member in keys:
        owners += [("key", key), ("member", member)] + ([("team", team)] if team else [])
    specs = [
        spec(kind, owner, resource, *span, where)
        for kind, owner in owners
        for resource in ("spend", "requests", "tokens")
        for span in spans
        for where in WHERES
    ]
    mine = [row for row in rows if row.organization_id == organization_id]
    expected = [by_hand(mine, asked) for asked in specs]
    await store(database, rows)
    found = await sums(database, organization_id, specs)
    for asked, want, got in zip(specs, expected, found, strict=True):
        assert got == want, asked


async def test_a_period_holds_its_first_instant_and_not_that_of_the_next(
    database, organization_id, clock
):
    start, end = clock.wall_ns(), clock.wall_ns() + SECOND_NS
    instants = [(start - 1, 1), (start, 2), (end - 1, 4), (end, 8)]
    # All settle in the next period: a reservation settles in the period that admitted it.
    rows = [
        entry(organization_id, at, settled_at_ns=end + 5, charge_nanos=nanos)
        for at, nanos in instants
    ]
    await store(database, rows)
    asked = spec("organization", organization_id, "spend", DAY, start, end)
    assert await sums(database, organization_id, [asked]) == [[[start, 6]]]


async def test_a_rolling_entry_stands_at_the_newest_instant_of_its_bucket(
    database, organization_id, clock
):
    now = clock.wall_ns()
    start = now - 61 * SECOND_NS
    key = uuid4()
    instants = [start - 1, start, start + 1, start + SECOND_NS - 1, start + SECOND_NS, now]
    await store(database, [entry(organization_id, at, key_id=key) for at in instants])
    asked = spec("key", key, "spend", MINUTE, start, now)
    assert await sums(database, organization_id, [asked]) == [
        [[start + SECOND_NS - 1, 3], [start + SECOND_NS, 1], [now, 1]]
    ]


async def test_what_settled_after_the_engine_asked_is_in_a_rolling_sum(
    database, organization_id, clock
):
    now = clock.wall_ns()
    late = now + 3 * SECOND_NS
    await store(database, [entry(organization_id, now - 1, settled_at_ns=late)])
    start = now - 61 * SECOND_NS
    specs = [
        spec("organization", organization_id, resource, MINUTE, start, now)
        for resource in ("spend", "tokens", "requests")
    ]
    assert await sums(database, organization_id, specs) == [
        [[late, 1]],
        [[late, 110]],
        [[now - 1, 1]],
    ]


async def test_a_scope_without_use_starts_from_nothing(database, organization_id, clock):
    now = clock.wall_ns()
    specs = [spec("key", uuid4(), "spend", window, now - 9, now) for window in (DAY, MINUTE)]
    assert await sums(database, organization_id, specs) == [[[now - 9, 0]], []]


async def test_the_number_of_queries_does_not_grow_with_the_number_of_limits(
    database, organization_id, clock
):
    now = clock.wall_ns()
    statements: list[str] = []

    def count(_connection, _cursor, statement, *_: Any) -> None:
        statements.append(statement)

    async def queries(limits: int) -> int:
        specs = [spec("key", uuid4(), "spend", DAY, now - 9, now) for _ in range(limits)]
        statements.clear()
        async with database.read() as session:
            engine = (await session.connection()).sync_connection.engine
            event.listen(engine, "before_cursor_execute", count)
            await counter_sums(session, organization_id, specs)
            event.remove(engine, "before_cursor_execute", count)
        return len(statements)

    assert await queries(1) == await queries(300) == 1


async def test_totals_are_kept_apart_by_organization(database, organization_id, clock):
    other = uuid4()
    now = clock.wall_ns()
    rows = [entry(organization_id, now, charge_nanos=2**61) for _ in range(3)]
    await store(database, [*rows, entry(other, now, charge_nanos=5)])
    async with database.read() as session:
        assert await charge_totals(session) == {organization_id: 3 * 2**61, other: 5}
