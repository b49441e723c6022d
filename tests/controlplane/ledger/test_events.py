"""What a settlement or a breaker caused is written once, with what caused it."""

from __future__ import annotations

from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import func, select

from controlplane.calibrations.models import RATIO_MAX, Calibration
from controlplane.clock import instant
from controlplane.ledger.batches import write_batch
from controlplane.ledger.events import event_id
from controlplane.ledger.models import (
    BreakerEventRow,
    DecisionRow,
    LedgerEntryRow,
    ThresholdCrossingRow,
)
from controlplane.ledger.records import BreakerEvent, Crossing, LedgerEntry

LIMIT = uuid4()


def breaker_event(organization_id: UUID, **fields: Any) -> BreakerEvent:
    facts: dict[str, Any] = {
        "organization_id": organization_id,
        "limit_id": LIMIT,
        "scope_kind": "team",
        "scope_id": LIMIT,
        "is_open": True,
        "sum_nanos": 2**62,
        "cap_nanos": 2**61,
        "at_ns": 2**60,
    }
    return BreakerEvent(**(facts | fields))


async def rows(database, table: type[Any]) -> list[Any]:
    async with database.read() as session:
        return list(await session.scalars(select(table).order_by(table.id)))


async def count(database, table: type[Any]) -> int:
    async with database.read() as session:
        return await session.scalar(select(func.count()).select_from(table)) or 0


async def write(database, records=(), events=(), **arguments: Any) -> None:
    async with database.write() as session:
        await write_batch(session, records, events, **arguments)


async def test_a_crossing_is_written_with_the_entry_that_caused_it(
    database, make_record, make_recorder, admitted_at_ns
):
    crossings = (Crossing(LIMIT, 7, 50, 2**62, 2**63 - 1), Crossing(LIMIT, 7, 80, 9, 10))
    recorder = make_recorder()
    recorder.start()
    recorder.put(make_record(seq=1, crossings=crossings))
    await recorder.flush()
    assert await count(database, LedgerEntryRow) == 1
    found = {row.percent: row for row in await rows(database, ThresholdCrossingRow)}
    assert set(found) == {50, 80}
    row = found[50]
    assert (row.limit_id, row.period_start_ns, row.settled, row.cap, row.at_ns) == (
        LIMIT,
        7,
        2**62,
        2**63 - 1,
        admitted_at_ns + 10,
    )


async def test_a_percentage_is_crossed_once_in_a_period(database, make_record, organization_id):
    first, again = Crossing(LIMIT, 7, 50, 5, 10), Crossing(LIMIT, 7, 50, 6, 12)
    await write(database, [make_record(seq=1, crossings=(first, again))])
    await write(database, [make_record(seq=2, crossings=(again, Crossing(LIMIT, 8, 50, 7, 12)))])
    other = make_record(organization_id=uuid4(), seq=1, crossings=(again,))
    await write(database, [other])
    found = {
        (row.organization_id, row.period_start_ns): row.settled
        for row in await rows(database, ThresholdCrossingRow)
    }
    assert found == {
        (organization_id, 7): 5,
        (organization_id, 8): 7,
        (other.organization_id, 7): 6,
    }


async def test_breaker_events_are_written_in_order_and_once(
    database, make_record, make_recorder, organization_id
):
    opened = breaker_event(organization_id)
    closed = breaker_event(organization_id, is_open=False, sum_nanos=0, at_ns=2**60 + 10**9)
    recorder = make_recorder()
    recorder.put_event(opened)
    recorder.put(make_record())
    recorder.put_event(closed)
    assert recorder.waiting == 3
    recorder.start()
    await recorder.flush()
    assert recorder.waiting == 0
    # A commit whose answer was lost is made again.
    await write(database, (), [opened, closed], cleaned=True)
    found = await rows(database, BreakerEventRow)
    assert [(row.is_open, row.sum_nanos, row.at_ns) for row in found] == [
        (True, 2**62, 2**60),
        (False, 0, 2**60 + 10**9),
    ]
    assert (found[0].scope_kind, found[0].scope_id, found[0].cap_nanos) == ("team", LIMIT, 2**61)
    assert await count(database, DecisionRow) == 1


async def test_an_event_alone_is_written_too(database, make_recorder, organization_id):
    recorder = make_recorder()
    recorder.start()
    recorder.put_event(breaker_event(organization_id))
    await recorder.stop()
    assert await count(database, BreakerEventRow) == 1


async def test_an_overrun_raises_the_calibration_of_its_model_and_never_lowers_it(
    database, make_record
):
    entry = LedgerEntry(settled_at_ns=1)

    def overrun(ratio: int | None, **fields: Any) -> Any:
        facts: dict[str, Any] = {"provider": "one", "model": "large", "entry": entry}
        return make_record(calibration_raised=ratio, **(facts | fields))

    highest = overrun(5)
    await write(database, [overrun(2), highest, overrun(3), overrun(None)])
    [row] = await rows(database, Calibration)
    assert (row.provider, row.model, row.ratio, row.version) == ("one", "large", 5, 1)
    assert row.request_id == UUID(bytes=highest.id)
    assert row.raised_at == instant(highest.finished_at_ns)
    # The same batch again, and a smaller one: nothing.
    await write(database, [highest, overrun(4)])
    [row] = await rows(database, Calibration)
    assert (row.ratio, row.version) == (5, 1)
    await write(database, [overrun(6), overrun(0, model="small"), overrun(2, provider=None)])
    found = {row.model: (row.ratio, row.version) for row in await rows(database, Calibration)}
    assert found == {"large": (6, 2), "small": (1, 1)}


async def test_a_calibration_has_a_most(database, make_record):
    record = make_record(provider="one", model="large", calibration_raised=RATIO_MAX + 1)
    await write(database, [record])
    [row] = await rows(database, Calibration)
    assert row.ratio == RATIO_MAX


def test_ids_of_events_are_those_of_version_7_and_sort_by_time():
    first, later = event_id(10**18, "a"), event_id(10**18 + 10**6, "a")
    assert first.version == 7
    assert first.variant == uuid4().variant
    assert first < later
    in_order = [event_id(10**18 + rest_ns, "a") for rest_ns in (0, 1, 255, 256, 999_999, 10**6)]
    assert in_order == sorted(in_order)
    assert event_id(10**18, "a") == first != event_id(10**18, "b")
