"""What was put is in the tables once, in order, and then acknowledged."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import func, select

from controlplane.db import Database
from controlplane.ledger.models import DecisionRow, LedgerEntryRow
from controlplane.ledger.recorder import BATCH_ROWS_MAX, RecorderStopped
from controlplane.ledger.records import DecisionRecord, LedgerEntry, invoice_period

DISTINCT: dict[str, Any] = {
    "team_id": uuid4(),
    "member_id": uuid4(),
    "end_user": "ü-17",
    "agent": "agent",
    "session": "session",
    "intent": "intent",
    "feature": "feature",
    "route": "route",
    "environment": "environment",
    "request_class": "A",
    "tags": b'{"cost":"center"}',
    "policy_version": "policy",
    "requested_model": "asked",
    "model": "name",
    "tier": "premium",
    "served_model": "served",
    "provider": "provider",
    "fallback_reason": "outage",
    "currency": "JPY",
    "invoice_period": "2026-02",
    "price_version": "prices",
    "input_tokens": 2**40 + 1,
    "output_tokens": 2**40 + 2,
    "cached_tokens": 2**40 + 3,
    "cache_write_tokens": 2**40 + 4,
    "reasoning_tokens": 2**40 + 5,
    "held_nanos": 2**62 + 1,
    "bound_nanos": 2**62 + 5,
    "calibration": 3,
    "cost_nanos": 2**62 + 2,
    "charge_nanos": 2**62 + 3,
    "usage_source": "own_count",
    "decision": "failed",
    "code": "code",
    "limit_id": uuid4(),
    "limit_scope": "team",
    "remaining_nanos": -(2**62),
    "rate_limit_bucket": "rpm",
    "over_limit_action": "refuse",
    "steps": b'[{"limitId": "l", "percent": 80, "action": "notify"}]',
    "waited_ns": 2**40 + 8,
    "extensions": 4,
    "cut_limit_id": uuid4(),
    "pools": f"{uuid4().hex},{uuid4().hex}",
    "assembled": True,
    "http_status": 502,
    "admitted_at_ns": 2**60 + 1,
    "finished_at_ns": 2**60 + 2,
    "latency_ns": 2**40 + 6,
    "first_byte_at_ns": 2**60 + 3,
    "streamed": True,
    "upstream_status": 500,
    "client_disconnected": True,
    "output_cap": 2**40 + 7,
    "engine_version": "engine",
    "seen": b'{"counters": [1,  2]}',
    "error_code": "reset",
}


async def count(database: Database, table: type[Any] = DecisionRow) -> int:
    async with database.read() as session:
        return await session.scalar(select(func.count()).select_from(table)) or 0


def as_stored(field: str, record: DecisionRecord) -> Any:
    value = getattr(record, field)
    by_hand = {
        "id": lambda: UUID(bytes=value),
        "tags": lambda: {"cost": "center"},
        "steps": lambda: [{"limitId": "l", "percent": 80, "action": "notify"}],
    }
    return by_hand.get(field, lambda: value.decode() if field == "seen" else value)()


async def test_every_field_of_a_record_is_stored_as_given(database, make_record, make_recorder):
    entry = LedgerEntry(settled_at_ns=2**60 + 4, overrun_nanos=2**62 + 4)
    record = make_record(**DISTINCT, entry=entry, seq=1)
    recorder = make_recorder()
    recorder.start()
    recorder.put(record)
    await recorder.flush()
    columns = [column.name for column in DecisionRow.__table__.columns]
    assert set(columns) == set(record.__struct_fields__) - {
        "entry",
        "seq",
        "crossings",
        "calibration_raised",
    }
    async with database.read() as session:
        row = await session.scalar(select(DecisionRow))
        booked = await session.scalar(select(LedgerEntryRow))
    for field in columns:
        assert getattr(row, field) == as_stored(field, record), field
    assert booked is not None
    assert {c.name: getattr(booked, c.name) for c in LedgerEntryRow.__table__.columns} == {
        "id": UUID(bytes=record.id),
        "organization_id": record.organization_id,
        "team_id": DISTINCT["team_id"],
        "member_id": DISTINCT["member_id"],
        "key_id": record.key_id,
        "model": "name",
        "provider": "provider",
        "tier": "premium",
        "pools": DISTINCT["pools"],
        "feature": "feature",
        "agent": "agent",
        "end_user": "ü-17",
        "session": "session",
        "admitted_at_ns": 2**60 + 1,
        "settled_at_ns": 2**60 + 4,
        "cost_nanos": 2**62 + 2,
        "charge_nanos": 2**62 + 3,
        "input_tokens": 2**40 + 1,
        "output_tokens": 2**40 + 2,
        "requests": 1,
        "usage_source": "own_count",
        "overrun_nanos": 2**62 + 4,
    }


async def test_a_refusal_is_recorded_and_books_nothing(database, make_record, make_recorder):
    acknowledged: list[tuple[UUID, int]] = []
    recorder = make_recorder(acknowledge=lambda *pair: acknowledged.append(pair))
    recorder.start()
    recorder.put(make_record(decision="refused", http_status=402, charge_nanos=0))
    await recorder.flush()
    assert await count(database) == 1
    assert await count(database, LedgerEntryRow) == 0
    assert acknowledged == []


async def test_the_same_record_twice_is_stored_once_with_its_first_values(
    database, make_record, make_recorder, organization_id
):
    acknowledged: list[tuple[UUID, int]] = []
    recorder = make_recorder(acknowledge=lambda *pair: acknowledged.append(pair))
    recorder.start()
    first = make_record(seq=1, charge_nanos=7)
    again = make_record(id=first.id, seq=1, charge_nanos=8)
    recorder.put(first)
    recorder.put(again)
    await recorder.flush()
    recorder.put(again)
    await recorder.flush()
    async with database.read() as session:
        assert (await session.scalars(select(DecisionRow.charge_nanos))).all() == [7]
        assert (await session.scalars(select(LedgerEntryRow.charge_nanos))).all() == [7]
    assert acknowledged == [(organization_id, 1)] * 2


async def test_batches_end_at_their_maximum_and_keep_the_order(
    database, make_record, make_recorder, organization_id
):
    acknowledged: list[tuple[UUID, int]] = []
    recorder = make_recorder(acknowledge=lambda *pair: acknowledged.append(pair))
    total = 2 * BATCH_ROWS_MAX + 45
    for seq in range(1, total + 1):
        recorder.put(make_record(seq=seq))
    recorder.start()
    await recorder.flush()
    assert await count(database) == await count(database, LedgerEntryRow) == total
    assert [seq for _, seq in acknowledged] == [BATCH_ROWS_MAX, 2 * BATCH_ROWS_MAX, total]


async def test_each_organization_is_told_its_own_largest_number(make_record, make_recorder):
    acknowledged: dict[UUID, int] = {}
    recorder = make_recorder(acknowledge=acknowledged.__setitem__)
    one, other = uuid4(), uuid4()
    for organization_id, seq in [(one, 1), (other, 1), (one, 2), (other, 0), (one, 3)]:
        recorder.put(make_record(organization_id=organization_id, seq=seq))
    recorder.start()
    await recorder.flush()
    assert acknowledged == {one: 3, other: 1}


async def test_a_full_queue_has_no_room_but_takes_what_was_spent(
    database, make_record, make_recorder
):
    recorder = make_recorder(queue_max=3)
    recorder.put(make_record())
    recorder.put(make_record())
    assert recorder.has_room
    recorder.put(make_record())
    assert not recorder.has_room
    recorder.put(make_record(seq=1))
    assert recorder.waiting == 4
    recorder.start()
    await recorder.flush()
    assert recorder.has_room
    assert recorder.waiting == 0
    assert await count(database) == 4


async def test_without_a_flush_a_single_record_is_written_by_itself(
    database, make_record, make_recorder
):
    written = asyncio.Event()
    recorder = make_recorder(acknowledge=lambda *_: written.set())
    recorder.start()
    recorder.put(make_record(seq=1))
    await asyncio.wait_for(written.wait(), timeout=30)
    assert await count(database) == 1


async def test_stop_writes_what_is_waiting(database, make_record, make_recorder):
    recorder = make_recorder()
    recorder.start()
    for _ in range(BATCH_ROWS_MAX + 1):
        recorder.put(make_record())
    await recorder.stop()
    assert await count(database) == BATCH_ROWS_MAX + 1


async def test_flush_says_when_nobody_will_write(database, make_record, make_recorder):
    recorder = make_recorder()
    await recorder.flush()
    recorder.put(make_record())
    with pytest.raises(RecorderStopped):
        await recorder.flush()
    assert recorder.waiting == 1
    assert await count(database) == 0


async def test_writing_goes_on_when_an_acknowledgement_fails(database, make_record, make_recorder):
    def refuse(*_: Any) -> None:
        raise ValueError("unknown organization")

    recorder = make_recorder(acknowledge=refuse)
    recorder.start()
    for seq in (1, 2):
        recorder.put(make_record(seq=seq))
        await recorder.flush()
    assert await count(database, LedgerEntryRow) == 2


@pytest.mark.parametrize(
    ("admitted_at_ns", "period"),
    [
        (1_772_323_200_000_000_000 - 1, "2026-02"),
        (1_772_323_200_000_000_000, "2026-03"),
        (0, "1970-01"),
    ],
)
def test_a_month_begins_at_midnight_utc(admitted_at_ns, period):
    assert invoice_period(admitted_at_ns) == period
