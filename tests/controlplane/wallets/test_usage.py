"""What requests use is booked with their money: once, and only what is to be paid from the wallet."""

from __future__ import annotations

import asyncio
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import delete, event, func, select

from controlplane.clock import nanoseconds
from controlplane.errors import InsufficientBalance
from controlplane.ledger.batches import write_batch
from controlplane.ledger.models import LedgerEntryRow
from controlplane.wallets.models import EntryKind, Wallet, WalletEntry
from controlplane.wallets.queries import credit_nanos, standing_of
from controlplane.wallets.service import adjust, open_wallet, refund, top_up
from tests.controlplane.wallets.test_wallets_service import balance_of, entries_of, opened


async def book(database, *records, **wanted) -> None:
    async with database.write() as session:
        await write_batch(session, records, **wanted)


async def test_each_ledger_entry_is_paid_by_one_of_its_id(
    work_as, operator, org, database, make_record
) -> None:
    await opened(work_as, operator, org, 1_000)
    records = [make_record(organization_id=org.id, seq=seq, charge_nanos=seq) for seq in (1, 2)]
    free = make_record(organization_id=org.id, seq=3, charge_nanos=0)
    refused = make_record(organization_id=org.id, decision="refused", charge_nanos=0)
    await book(database, *records, free, refused)
    found = (await entries_of(database, org))[1:]
    assert [each.id for each in found] == [UUID(bytes=each.id) for each in (*records, free)]
    assert [each.amount_nanos for each in found] == [-1, -2, 0]
    assert [each.balance_after_nanos for each in found] == [999, 997, 997]
    assert {each.kind for each in found} == {EntryKind.USAGE}
    assert {each.actor_id for each in found} == {None}
    assert [each.at_ns for each in found] == [each.entry.settled_at_ns for each in (*records, free)]


async def test_a_batch_written_again_takes_nothing_twice(
    work_as, operator, org, database, make_record
) -> None:
    await opened(work_as, operator, org, 1_000)
    records = [make_record(organization_id=org.id, seq=seq, charge_nanos=5) for seq in range(1, 41)]
    await book(database, *records[:30])
    await book(database, *records, cleaned=True)
    await book(database, *records, records[0])
    assert await balance_of(database, org) == 800
    assert [each.seq for each in await entries_of(database, org)] == list(range(1, 42))


async def test_what_was_admitted_before_is_not_paid_from_the_wallet(
    work_as, operator, org, database, installation, make_record
) -> None:
    await opened(work_as, operator, org, 1_000)
    opened_ns = nanoseconds(installation.now())
    before, at = (
        make_record(organization_id=org.id, seq=1, charge_nanos=7, admitted_at_ns=instant_ns)
        for instant_ns in (opened_ns - 1, opened_ns)
    )
    await book(database, before, at)
    found = await entries_of(database, org)
    assert [each.id for each in found[1:]] == [UUID(bytes=at.id)]


async def test_only_organizations_with_a_wallet_are_asked_for_it(
    work_as, operator, org, foreign, database, make_record
) -> None:
    statements: list[str] = []

    def count(_connection, _cursor, statement, *_rest) -> None:
        if "wallet" in statement:
            statements.append(statement)

    event.listen(database._writers.sync_engine, "before_cursor_execute", count)
    records = [make_record(organization_id=foreign.id, seq=seq) for seq in range(1, 101)]
    await book(database, *records)
    assert len(statements) == 1
    await opened(work_as, operator, org)
    statements.clear()
    await book(database, make_record(organization_id=org.id, seq=1), *records)
    assert len(statements) == 4
    assert await entries_of(database, foreign) == []


async def test_two_organizations_in_one_batch_pay_their_own(
    work_as, operator, org, foreign, database, make_record
) -> None:
    await opened(work_as, operator, org, 100)
    await opened(work_as, operator, foreign, 100)
    await book(
        database,
        *(
            make_record(organization_id=place.id, seq=1, charge_nanos=charge)
            for place, charge in ((org, 1), (foreign, 20), (org, 3))
        ),
    )
    assert (await balance_of(database, org), await balance_of(database, foreign)) == (96, 80)


async def test_an_overrun_shows_as_a_balance_below_zero(
    work_as, operator, org, database, make_record
) -> None:
    await opened(work_as, operator, org, 10)
    await book(database, make_record(organization_id=org.id, seq=1, charge_nanos=12))
    assert await balance_of(database, org) == -2
    with pytest.raises(InsufficientBalance):
        async with work_as(operator) as work:
            await adjust(work, org.id, amount_nanos=-1, note="n", idempotency_key="k")


async def test_absurd_charges_do_not_keep_money_from_being_booked(
    work_as, operator, org, database, make_record
) -> None:
    await opened(work_as, operator, org, 10)
    for seq in (1, 2):
        absurd = make_record(organization_id=org.id, seq=seq, charge_nanos=2**70)
        await book(database, absurd, cleaned=True)
    await book(database, make_record(organization_id=org.id, seq=3, charge_nanos=1))
    assert await balance_of(database, org) == -(2**63 - 1)
    assert len(await entries_of(database, org)) == 4


async def test_processes_that_book_at_once_number_their_entries_one_after_the_other(
    work_as, operator, org, processes, make_record
) -> None:
    await opened(work_as, operator, org, 1_000)
    await asyncio.gather(
        *(
            book(place, make_record(organization_id=org.id, seq=1, charge_nanos=1))
            for place in processes
            for _ in range(10)
        )
    )
    found = await entries_of(processes[0], org)
    assert [each.seq for each in found] == list(range(1, 32))
    assert found[-1].balance_after_nanos == 970


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["top_up", "adjust", "use", "again", "refund"]), st.integers(-60, 60)
    ),
    max_size=12,
)


@settings(
    max_examples=15,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(steps=STEPS)
async def test_the_balance_is_the_sum_and_people_never_take_it_below_zero(
    work_as, operator, org, database, make_record, steps
) -> None:
    """Against a model; requests use at most what is left, as the engine sees to."""
    async with database.write() as session:
        for table in (WalletEntry, Wallet, LedgerEntryRow):
            await session.execute(delete(table))
    async with work_as(operator) as work:
        await open_wallet(work, org.id, idempotency_key=str(work.new_id()))
    model: list[int] = []
    records: list = []
    refunded: set[bytes] = set()
    for kind, number in steps:
        left = sum(model)
        if kind == "use":
            charge = min(abs(number), left)
            record = make_record(organization_id=org.id, seq=1, charge_nanos=charge)
            await book(database, record)
            records.append(record)
            model.append(-charge)
        elif kind == "again" and records:
            await book(database, *records)
        else:
            model += await _by_people(work_as, operator, org, kind, number, left, records, refunded)
        assert sum(model) >= 0
    found = await entries_of(database, org)
    assert [each.amount_nanos for each in found] == model
    sums = [sum(model[: place + 1]) for place in range(len(model))]
    assert [each.balance_after_nanos for each in found] == sums
    async with database.read() as session:
        total = select(func.sum(WalletEntry.amount_nanos))
        assert (await standing_of(session, org.id)).balance_nanos == (
            await session.scalar(total) or 0
        )
        assert await credit_nanos(session, org.id) == sum(
            each.amount_nanos for each in found if each.kind is not EntryKind.USAGE
        )


async def _by_people(work_as, operator, org, kind, number, left, records, refunded) -> list[int]:
    """Book what a person may; give what was booked."""
    async with work_as(operator) as work:
        key = str(work.new_id())
        if kind == "top_up" and number > 0:
            await top_up(work, org.id, amount_nanos=number, reference="R", idempotency_key=key)
            return [number]
        if kind == "adjust" and number != 0:
            wanted = {"amount_nanos": number, "note": "n", "idempotency_key": key}
            if left + number >= 0:
                await adjust(work, org.id, **wanted)
                return [number]
            with pytest.raises(InsufficientBalance):
                await adjust(work, org.id, **wanted)
        open_records = [each for each in records if each.id not in refunded and each.charge_nanos]
        if kind == "refund" and open_records:
            record = open_records[0]
            refunded.add(record.id)
            await refund(
                work,
                org.id,
                request_id=UUID(bytes=record.id),
                amount_nanos=record.charge_nanos,
                idempotency_key=key,
            )
            return [record.charge_nanos]
    return []
