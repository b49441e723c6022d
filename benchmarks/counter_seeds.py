"""What it takes to read the start of a counter from a million ledger entries of an organization.

    python benchmarks/counter_seeds.py [postgresql://…]

A thousand keys in 20 teams, 200,000 sessions, entries spread over 300 days. Wall milliseconds, the
least of three runs, with all rows in memory.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from pathlib import Path
from typing import Any
from uuid import UUID

from benchmarks.records import fresh_database
from controlplane.clock import instant
from controlplane.db import Database
from controlplane.ids import derived_id
from controlplane.ledger.queries import counter_sums
from controlplane.migrations import upgrade
from controlplane.settings import sqlite_url
from controlplane.tenancy.models import Organization, OrganizationState

ROWS = 1_000_000
RUNS = 3
DAY_NS = 86_400 * 10**9
NOW_NS = 1_780_000_000 * 10**9
FIRST_NS = NOW_NS - 300 * DAY_NS
NEVER_NS = 2**64 - 1
ORGANIZATION = UUID(int=7)
LIFETIME = {"kind": "lifetime", "starts_at_ns": 0}
MONTH = {"kind": "calendar", "period": "month", "time_zone": "UTC"}
HOUR = {"kind": "rolling", "seconds": 3600}
COLUMNS = (
    "id, organization_id, team_id, key_id, model, provider, pools, session, admitted_at_ns, "
    "settled_at_ns, cost_nanos, charge_nanos, input_tokens, output_tokens, requests, "
    "usage_source, overrun_nanos"
)
VALUES = (
    "{id}, {organization}, {team}, {key}, 'gpt-4o-mini', 'openai', '', "
    "'session-' || (n % 200000), {at}, {at}, 5, 6, 100, 300, 1, 'provider', 0"
)
SERIES = {
    "sqlite": "WITH RECURSIVE s(n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM s WHERE n < {rows} - 1)"
    " SELECT {values} FROM s",
    "postgresql": "SELECT {values} FROM generate_series(0, {rows} - 1) AS s(n)",
}


def uuid_sql(backend: str, first: int, number: str) -> str:
    """Write a UUID made of a first digit and a number, as each database keeps it."""
    if backend == "sqlite":
        return f"printf('{first:x}%031x', {number})"
    return f"('{first:x}' || lpad(to_hex({number}), 31, '0'))::uuid"


def filling(backend: str) -> str:
    """Write the statement that adds all entries."""
    organization = str(ORGANIZATION) if backend == "postgresql" else ORGANIZATION.hex
    values = VALUES.format(
        id=uuid_sql(backend, 1, "n"),
        organization=f"'{organization}'" + ("::uuid" if backend == "postgresql" else ""),
        team=uuid_sql(backend, 2, "n % 20"),
        key=uuid_sql(backend, 3, "n % 1000"),
        at=f"{FIRST_NS} + n * {300 * DAY_NS // ROWS}",
    )
    selected = SERIES[backend].format(rows=ROWS, values=values)
    return f"INSERT INTO ledger_entries ({COLUMNS}) {selected}"


def spec(scope: dict[str, Any], window: dict[str, Any], start: int, end: int) -> dict[str, Any]:
    """Write what the engine would ask."""
    return {
        "scope": scope,
        "where": None,
        "resource": "spend",
        "window": window,
        "starts_at_ns": start,
        "ends_at_ns": end,
    }


def key(number: int) -> dict[str, Any]:
    """Name the scope of a key."""
    return {"kind": "key", "id": str(UUID(int=3 << 124 | number))}


def questions() -> dict[str, list[dict[str, Any]]]:
    """List what is measured."""
    organization = {"kind": "organization", "id": str(ORGANIZATION)}
    installation = {"kind": "installation", "id": str(derived_id("installation", ""))}
    team = {"kind": "team", "id": str(UUID(int=2 << 124 | 3))}
    life = (LIFETIME, 0, NEVER_NS)
    month = (MONTH, NOW_NS - 20 * DAY_NS, NOW_NS + 10 * DAY_NS)
    hour = (HOUR, NOW_NS - 3660 * 10**9, NOW_NS)
    return {
        "an hour of the organization": [spec(organization, *hour)],
        "an hour of the installation": [spec(installation, *hour)],
        "a month of the organization": [spec(organization, *month)],
        "the lifetime of the organization": [spec(organization, *life)],
        "the lifetime of a team": [spec(team, *life)],
        "the lifetime of a key": [spec(key(5), *life)],
        "the lifetimes of a thousand keys": [spec(key(each), *life) for each in range(1000)],
        "the lifetimes of 200,000 sessions": [spec({"kind": "session", "each": True}, *life)],
    }


async def measure(url: str) -> None:
    """Fill a database and print what each question takes."""
    await upgrade(url)
    database = Database(url)
    backend = "sqlite" if url.startswith("sqlite") else "postgresql"
    async with database.write() as session:
        session.add(
            Organization(
                id=ORGANIZATION,
                slug="acme",
                name="Acme",
                currency="USD",
                time_zone="UTC",
                state=OrganizationState.ACTIVE,
                epoch=1,
                created_at=instant(NOW_NS),
            )
        )
    async with database.write() as session:
        connection = await session.connection()
        await connection.exec_driver_sql(filling(backend))
    async with database.write() as session:
        await (await session.connection()).exec_driver_sql("ANALYZE")
    for name, specs in questions().items():
        taken = []
        for _ in range(RUNS):
            began = time.perf_counter()
            async with database.read() as session:
                await counter_sums(session, ORGANIZATION, specs)
            taken.append(time.perf_counter() - began)
        print(f"{backend:12} {name:36} {min(taken) * 1e3:9,.1f} ms")
    await database.aclose()


async def main(postgresql: str | None) -> None:
    """Measure on SQLite, and on PostgreSQL where there is one."""
    with tempfile.TemporaryDirectory() as folder:
        await measure(sqlite_url(Path(folder) / "seeds.db"))
    if postgresql:
        async with fresh_database(postgresql) as url:
            await measure(url)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else None))
