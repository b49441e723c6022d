"""What a decision record costs: CPU µs to build, to put, to write; records a second.

    python benchmarks/records.py [postgresql://…]

SQLite (synchronous FULL) in a temporary folder; PostgreSQL in a schema-less fresh database that is
dropped afterwards. CPU is user and system of this process with all its threads; the server's own
is not in it. The least of the runs is printed, since other work can only add to it.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import UUID, uuid4

import asyncpg
import structlog
from sqlalchemy.engine import make_url

from controlplane.clock import SystemClock
from controlplane.db import Database
from controlplane.ids import IdSource
from controlplane.ledger.models import DecisionRow, LedgerEntryRow
from controlplane.ledger.recorder import BATCH_ROWS_MAX, Recorder
from controlplane.ledger.records import DecisionRecord, LedgerEntry, invoice_period
from controlplane.settings import sqlite_url

BATCHES = 5
RUNS = 3
SEEN = b'{"counters":[' + b",".join([b"[123456789,987654321]"] * 12) + b"]}"
CLOCK = SystemClock()
IDS = IdSource(CLOCK)
ORGANIZATION, TEAM, MEMBER = uuid4(), uuid4(), uuid4()
KEYS = [uuid4() for _ in range(100)]


def record(seq: int, key_id: UUID, now_ns: int, request_id: bytes) -> DecisionRecord:
    """Make a record with the fields of an ordinary settled request."""
    return DecisionRecord(
        id=request_id,
        organization_id=ORGANIZATION,
        key_id=key_id,
        team_id=TEAM,
        member_id=MEMBER,
        end_user="user-17",
        route="/v1/chat/completions",
        feature="support",
        environment="production",
        tags=b'{"cost_center":"42"}',
        policy_version="ab" * 32,
        requested_model="gpt-4o-mini",
        served_model="gpt-4o-mini",
        provider="openai",
        currency="USD",
        invoice_period=invoice_period(now_ns),
        price_version="2026-11-01",
        input_tokens=120,
        output_tokens=300,
        held_nanos=1_234_567,
        cost_nanos=1_000_000,
        charge_nanos=1_000_000,
        usage_source="provider",
        decision="allowed",
        remaining_nanos=99_000_000_000,
        http_status=200,
        admitted_at_ns=now_ns,
        finished_at_ns=now_ns + 10**9,
        latency_ns=10**9,
        first_byte_at_ns=now_ns + 10**8,
        upstream_status=200,
        engine_version="0.1.0",
        seen=SEEN,
        entry=LedgerEntry(settled_at_ns=now_ns + 10**9),
        seq=seq,
    )


def cpu_us(work: Callable[[], object], times: int) -> float:
    started = time.process_time()
    work()
    return (time.process_time() - started) * 1e6 / times


def build(count: int) -> list[DecisionRecord]:
    now_ns = CLOCK.wall_ns()
    ids = [IDS.new_bytes() for _ in range(count)]
    return [record(seq, KEYS[seq % 100], now_ns, ids[seq - 1]) for seq in range(1, count + 1)]


async def write_once(database: Database) -> tuple[float, float, float]:
    """Put and write the records; CPU µs to put, CPU µs and wall µs to write, each per record."""
    records = build(BATCHES * BATCH_ROWS_MAX)
    recorder = Recorder(database, queue_max=len(records), acknowledge=lambda *_: None)

    def put_all() -> None:
        for one in records:
            recorder.put(one)

    put_us = cpu_us(put_all, len(records))
    wall, cpu = time.perf_counter(), time.process_time()
    recorder.start()
    await recorder.flush()
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    await recorder.stop()
    return put_us, cpu * 1e6 / len(records), wall * 1e6 / len(records)


async def create_tables(database: Database) -> None:
    async with database.write() as session:
        connection = await session.connection()
        for table in (DecisionRow.__table__, LedgerEntryRow.__table__):
            await connection.run_sync(table.create)


async def measure(name: str, url: str) -> None:
    database = Database(url)
    await create_tables(database)
    runs = [await write_once(database) for _ in range(RUNS)]
    await database.aclose()
    put_us, cpu, wall = (min(column) for column in zip(*runs, strict=True))
    print(f"{name:12} put {put_us:6.2f}   write {cpu:6.1f} CPU µs   {1e6 / wall:8,.0f} records/s")


@asynccontextmanager
async def fresh_database(address: str) -> AsyncIterator[str]:
    name = f"comptroller_bench_{uuid4().hex}"
    server = await asyncpg.connect(address)
    await server.execute(f"CREATE DATABASE {name}")
    try:
        yield make_url(address).set(database=name).render_as_string(hide_password=False)
    finally:
        await server.execute(f"DROP DATABASE {name} WITH (FORCE)")
        await server.close()


async def main(postgresql: str | None) -> None:
    gc.disable()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    built = min(cpu_us(lambda: build(BATCH_ROWS_MAX), BATCH_ROWS_MAX) for _ in range(RUNS))
    print(f"{'build':12} {built:.2f} CPU µs a record, its id included")
    with tempfile.TemporaryDirectory() as folder:
        await measure("SQLite", sqlite_url(Path(folder) / "records.db"))
    if postgresql:
        async with fresh_database(postgresql) as url:
            await measure("PostgreSQL", url)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else None))
