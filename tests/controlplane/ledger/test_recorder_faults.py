"""A store that fails loses nothing, doubles nothing, and is not believed while in doubt."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import pytest
from sqlalchemy import func, select, text
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import AsyncSession

from controlplane.db import Database
from controlplane.ledger.models import DecisionRow, LedgerEntryRow
from controlplane.ledger.queries import charge_totals
from controlplane.ledger.recorder import RecordsUnwritten


class Pauses:
    """Stands in for sleep: shows that an attempt failed, ends when the test says so."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.failed = asyncio.Event()
        self.again = asyncio.Event()

    async def __call__(self, seconds: float) -> None:
        self.seconds.append(seconds)
        self.failed.set()
        await self.again.wait()


class LosesAnswer:
    """A database whose first commits succeed without anybody being told."""

    def __init__(self, database: Database, times: int) -> None:
        self._database = database
        self.times = times

    @asynccontextmanager
    async def write(self) -> AsyncIterator[AsyncSession]:
        async with self._database.write() as session:
            yield session
        if self.times > 0:
            self.times -= 1
            raise ConnectionResetError


async def ids(database: Database, table: type[Any] = LedgerEntryRow) -> list[Any]:
    async with database.read() as session:
        return sorted((await session.scalars(select(table.id))).all())


async def lock_out(database: Database) -> Callable[[], None]:
    """Take the write lock of SQLite, or end every other connection to PostgreSQL."""
    if not database.url.startswith("sqlite"):
        await end_connections(database)
        return lambda: None
    async with database.write() as session:
        await session.execute(text("PRAGMA busy_timeout=0"))
    other = sqlite3.connect(make_url(database.url).database or "", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    return other.close


async def end_connections(database: Database) -> None:
    plain = make_url(database.url).set(drivername="postgresql")
    connection = await asyncpg.connect(plain.render_as_string(hide_password=False))
    await connection.execute(
        "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity"
        " WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    await connection.close()


async def test_a_store_that_fails_and_recovers_has_every_record_once(
    database, make_record, make_recorder, organization_id
):
    acknowledged: list[tuple[Any, int]] = []
    pauses = Pauses()
    recorder = make_recorder(
        queue_max=3, acknowledge=lambda *pair: acknowledged.append(pair), sleep=pauses
    )
    recorder.start()
    first = make_record(seq=1)
    recorder.put(first)
    await recorder.flush()
    repair = await lock_out(database)
    later = [make_record(seq=seq) for seq in (2, 3, 4)]
    for record in later:
        recorder.put(record)
    await asyncio.wait_for(pauses.failed.wait(), timeout=30)
    assert acknowledged == [(organization_id, 1)]
    assert not recorder.has_room
    repair()
    pauses.again.set()
    await recorder.flush()
    assert acknowledged == [(organization_id, 1), (organization_id, 4)]
    assert recorder.has_room
    everything = sorted(record.id for record in [first, *later])
    assert [row.bytes for row in await ids(database)] == everything
    assert [row.bytes for row in await ids(database, DecisionRow)] == everything


async def test_a_commit_whose_answer_was_lost_is_not_booked_again(
    database, make_record, make_recorder, organization_id
):
    acknowledged: list[int] = []
    pauses = Pauses()
    store = LosesAnswer(database, times=1)
    recorder = make_recorder(
        store, acknowledge=lambda _, seq: acknowledged.append(seq), sleep=pauses
    )
    recorder.start()
    recorder.put(make_record(seq=1, charge_nanos=7))
    await asyncio.wait_for(pauses.failed.wait(), timeout=30)
    assert len(await ids(database)) == 1
    assert acknowledged == []
    pauses.again.set()
    await recorder.flush()
    assert acknowledged == [1]
    async with database.read() as session:
        assert await charge_totals(session) == {organization_id: 7}


async def test_sums_are_not_read_while_a_commit_is_in_doubt(database, make_record, make_recorder):
    acknowledged: list[int] = []
    pauses = Pauses()
    recorder = make_recorder(
        LosesAnswer(database, times=1),
        acknowledge=lambda _, seq: acknowledged.append(seq),
        sleep=pauses,
    )
    recorder.start()
    recorder.put(make_record(seq=1))
    await asyncio.wait_for(pauses.failed.wait(), timeout=30)

    async def seed() -> tuple[int, int]:
        async with recorder.flushed_session() as session:
            return await booked(session), acknowledged[-1] if acknowledged else 0

    seeding = asyncio.create_task(seed())
    for _ in range(50):
        await asyncio.sleep(0)
    assert not seeding.done()
    pauses.again.set()
    assert await seeding == (1, 1)


async def test_sums_read_in_a_flushed_session_agree_with_what_was_acknowledged(
    database, make_record, make_recorder
):
    acknowledged = [0]
    recorder = make_recorder(acknowledge=lambda _, seq: acknowledged.append(seq))
    recorder.start()
    settled = 0
    for _ in range(20):
        for _ in range(40):
            settled += 1
            recorder.put(make_record(seq=settled))
        async with recorder.flushed_session() as session:
            before = await booked(session)
            assert before == acknowledged[-1] == settled
            settled += 1
            recorder.put(make_record(seq=settled))
            flushing = asyncio.create_task(recorder.flush())
            for _ in range(20):
                await asyncio.sleep(0)
            assert await booked(session) == acknowledged[-1] == before
        await flushing
        assert acknowledged[-1] == settled


async def booked(session: AsyncSession) -> int:
    return await session.scalar(select(func.count()).select_from(LedgerEntryRow)) or 0


async def test_one_odd_request_does_not_hold_up_the_others(database, make_record, make_recorder):
    async def at_once(_: float) -> None: ...

    recorder = make_recorder(sleep=at_once)
    recorder.start()
    odd = make_record(
        seq=1,
        end_user="a\0b\ud800c",
        tags=b'{"a":"\\u0000"}',
        seen=b"\xff",
        output_cap=10**30,
        remaining_nanos=-(10**30),
    )
    recorder.put(odd)
    recorder.put(make_record(seq=2))
    await recorder.flush()
    async with database.read() as session:
        rows = {row.id.bytes: row for row in await session.scalars(select(DecisionRow))}
        assert await booked(session) == 2
    assert len(rows) == 2
    stored = rows[odd.id]
    assert stored.end_user == "a\ufffdb?c"
    assert stored.tags == {"a": "\ufffd"}
    assert stored.seen == "\ufffd"
    assert (stored.output_cap, stored.remaining_nanos) == (2**63 - 1, -(2**63 - 1))


async def test_pauses_grow_and_stay_below_their_maximum(database, make_record, make_recorder):
    pauses = Pauses()
    pauses.again.set()
    recorder = make_recorder(LosesAnswer(database, times=9), sleep=pauses)
    recorder.start()
    recorder.put(make_record())
    await recorder.flush()
    assert pauses.seconds == [0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0]


async def test_stop_says_how_many_records_a_dead_store_did_not_take(
    database, make_record, make_recorder
):
    pauses = Pauses()
    recorder = make_recorder(LosesAnswer(database, times=10**9), sleep=pauses)
    recorder.start()
    recorder.put(make_record())
    recorder.put(make_record())
    await asyncio.wait_for(pauses.failed.wait(), timeout=30)
    recorder.put(make_record())
    with pytest.raises(RecordsUnwritten) as stopped:
        await recorder.stop(timeout_s=0)
    assert stopped.value.count == 3
