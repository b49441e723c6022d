"""Wallets: what people book on them, once, and never less than was spent."""

from __future__ import annotations

import asyncio
import json
from uuid import UUID, uuid4

import pytest
from sqlalchemy import select

from controlplane.audit.models import AdminEvent
from controlplane.clock import nanoseconds
from controlplane.context import unit_of_work
from controlplane.db import Database
from controlplane.errors import (
    Conflict,
    IdempotencyMismatch,
    InsufficientBalance,
    InvalidInput,
    NotFound,
    NotPermitted,
    StaleVersion,
)
from controlplane.events import Events, OrganizationChanged
from controlplane.inputs import MONEY_NANOS_MAX
from controlplane.ledger.batches import write_batch
from controlplane.limits.derived import derived_id
from controlplane.money import format_money
from controlplane.policies.snapshot import organization_snapshot
from controlplane.wallets.models import (
    NOTE_LENGTH_MAX,
    REFERENCE_LENGTH_MAX,
    EntryKind,
    WalletEntry,
)
from controlplane.wallets.queries import balance_limit_id, standing_of
from controlplane.wallets.service import adjust, open_wallet, refund, top_up, update_wallet
from tests.controlplane.everything import everything


async def opened(work_as, operator, org, credit_nanos: int = 0) -> None:
    async with work_as(operator) as work:
        await open_wallet(work, org.id, idempotency_key="open")
        if credit_nanos:
            await top_up(
                work, org.id, amount_nanos=credit_nanos, reference="R", idempotency_key="first"
            )


async def spend(database, make_record, org, charge_nanos: int) -> UUID:
    record = make_record(organization_id=org.id, seq=1, charge_nanos=charge_nanos)
    async with database.write() as session:
        await write_batch(session, [record])
    return UUID(bytes=record.id)


async def entries_of(database, org) -> list[WalletEntry]:
    query = select(WalletEntry).where(WalletEntry.organization_id == org.id)
    async with database.read() as session:
        return list(await session.scalars(query.order_by(WalletEntry.seq)))


async def balance_of(database, org) -> int:
    async with database.read() as session:
        return (await standing_of(session, org.id)).balance_nanos


async def limit_of(database, org, settings):
    async with database.read() as session:
        found = json.loads(await organization_snapshot(session, org.id, settings))
    return found["limits"]


async def test_a_wallet_is_a_hard_limit_over_all_that_was_credited(
    work_as, operator, org, database, installation, published, make_record
) -> None:
    assert await limit_of(database, org, installation.settings) == []
    await opened(work_as, operator, org)
    assert published == [OrganizationChanged(org.id, policy=True)]
    limit = {
        "id": str(balance_limit_id(org.id)),
        "kind": "balance",
        "scope": {"kind": "organization", "id": str(org.id)},
        "where": None,
        "resource": "spend",
        "window": {"kind": "lifetime", "starts_at_ns": nanoseconds(installation.now())},
        "cap": 0,
        "mode": "hard",
        "hold": "bound",
        "steps": [],
        "cooldown_s": None,
        "offset": 0,
        "offset_until_ns": None,
        "from_ns": None,
        "until_ns": None,
    }
    assert await limit_of(database, org, installation.settings) == [limit]
    async with work_as(operator) as work:
        await top_up(work, org.id, amount_nanos=100, reference="R", idempotency_key="1")
        await adjust(work, org.id, amount_nanos=-30, note="typo", idempotency_key="2")
    request_id = await spend(database, make_record, org, 50)
    assert await limit_of(database, org, installation.settings) == [{**limit, "cap": 70}]
    async with work_as(operator) as work:
        await refund(work, org.id, request_id=request_id, amount_nanos=50, idempotency_key="3")
    assert await limit_of(database, org, installation.settings) == [{**limit, "cap": 120}]
    assert await balance_of(database, org) == 70
    found = [
        (each.seq, each.kind, each.amount_nanos, each.balance_after_nanos)
        for each in await entries_of(database, org)
    ]
    assert found == [
        (1, EntryKind.TOP_UP, 100, 100),
        (2, EntryKind.ADJUSTMENT, -30, 70),
        (3, EntryKind.USAGE, -50, 20),
        (4, EntryKind.REFUND, 50, 70),
    ]


def test_the_limits_of_organizations_are_told_apart() -> None:
    ids = [UUID(int=number) for number in range(3)]
    assert len({derived_id(each, slot) for each in ids for slot in ("a", "b")}) == 6


async def test_what_people_book_says_who_and_why(
    work_as, operator, org, database, installation
) -> None:
    await opened(work_as, operator, org)
    async with work_as(operator) as work:
        row = await top_up(
            work, org.id, amount_nanos=5, reference=" INV-1 ", note="by wire", idempotency_key=" k "
        )
    [entry] = await entries_of(database, org)
    assert (entry.id, entry.reference, entry.note) == (row.id, "INV-1", "by wire")
    assert (entry.actor_id, entry.idempotency_key) == (operator.user_id, "k")
    assert entry.at_ns == nanoseconds(installation.now())
    async with database.read() as session:
        events = {
            each.action: each
            for each in await session.scalars(select(AdminEvent))
            if each.action.startswith("wallet.")
        }
    assert events.keys() == {"wallet.open", "wallet.top_up"}
    assert events["wallet.top_up"].after["amount_nanos"] == 5
    assert {each.organization_id for each in events.values()} == {org.id}


async def test_the_same_call_again_books_nothing(
    work_as, operator, org, database, published, make_record
) -> None:
    await opened(work_as, operator, org, 100)
    request_id = await spend(database, make_record, org, 10)

    def calls(work, amount: int, **other):
        wanted = {"amount_nanos": amount, **other}
        return (
            lambda: top_up(work, org.id, reference="R", idempotency_key="t", **wanted),
            lambda: adjust(work, org.id, idempotency_key="a", **{"note": "n", **wanted}),
            lambda: refund(work, org.id, request_id=request_id, idempotency_key="r", **wanted),
        )

    async with work_as(operator) as work:
        first = [(await each()).id for each in calls(work, 5)]
    published.clear()
    before = await everything(database)
    async with work_as(operator) as work:
        assert [(await each()).id for each in calls(work, 5)] == first
        await open_wallet(work, org.id, idempotency_key="open")
    for number in range(3):
        for wanted in ((6, {}), (5, {"note": "other"})):
            with pytest.raises(IdempotencyMismatch):
                async with work_as(operator) as work:
                    await calls(work, wanted[0], **wanted[1])[number]()
    with pytest.raises(IdempotencyMismatch):
        async with work_as(operator) as work:
            await open_wallet(work, org.id, idempotency_key="open", low_balance_threshold_nanos=1)
    assert await everything(database) == before
    assert published == []


async def test_an_organization_has_one_wallet(work_as, operator, org, database) -> None:
    await opened(work_as, operator, org)
    before = await everything(database)
    with pytest.raises(Conflict):
        async with work_as(operator) as work:
            await open_wallet(work, org.id, idempotency_key="again")
    assert await everything(database) == before


@pytest.mark.parametrize("held_nanos", [0, 15])
async def test_what_is_spent_or_held_cannot_be_taken_away(
    work_as, operator, org, database, published, make_record, held_nanos
) -> None:
    await opened(work_as, operator, org, 100)
    await spend(database, make_record, org, 40)
    published.clear()
    before = await everything(database)
    in_use = {"in_use_nanos": 40 + held_nanos if held_nanos else 0}
    left = 60 - held_nanos

    async def take(nanos: int) -> None:
        async with work_as(operator) as work:
            await adjust(work, org.id, amount_nanos=-nanos, note="n", idempotency_key="k", **in_use)

    with pytest.raises(InsufficientBalance) as refusal:
        await take(left + 1)
    assert refusal.value.message == f"Only {format_money(left)} can be taken away."
    assert await everything(database) == before
    assert published == []
    await take(left)
    assert await balance_of(database, org) == 60 - left


async def test_a_request_is_refunded_once_and_at_most_its_charge(
    work_as, operator, org, foreign, database, make_record
) -> None:
    await opened(work_as, operator, org, 100)
    await opened(work_as, operator, foreign, 100)
    own = await spend(database, make_record, org, 10)
    theirs = await spend(database, make_record, foreign, 10)
    [credit, _] = await entries_of(database, org)

    async def give(request_id: UUID, nanos: int, key: str) -> None:
        async with work_as(operator) as work:
            await refund(
                work, org.id, request_id=request_id, amount_nanos=nanos, idempotency_key=key
            )

    before = await everything(database)
    for request_id, nanos, fault in (
        (own, 11, InvalidInput),
        (own, 0, InvalidInput),
        (own, -1, InvalidInput),
        (theirs, 1, NotFound),
        (uuid4(), 1, NotFound),
        (credit.id, 1, NotFound),
    ):
        with pytest.raises(fault):
            await give(request_id, nanos, "x")
    assert await everything(database) == before
    await give(own, 4, "1")
    before = await everything(database)
    with pytest.raises(Conflict):
        await give(own, 4, "2")
    assert await everything(database) == before
    assert await balance_of(database, org) == 94


@pytest.mark.parametrize(
    "wanted",
    [
        {"amount_nanos": 0},
        {"amount_nanos": -1},
        {"amount_nanos": MONEY_NANOS_MAX},
        {"amount_nanos": MONEY_NANOS_MAX + 1},
        {"reference": ""},
        {"reference": "x" * (REFERENCE_LENGTH_MAX + 1)},
        {"note": "x" * (NOTE_LENGTH_MAX + 1)},
        {"idempotency_key": ""},
        {"idempotency_key": "x" * 256},
    ],
)
async def test_a_top_up_that_cannot_be_changes_nothing(
    work_as, operator, org, database, published, wanted
) -> None:
    await opened(work_as, operator, org, 1)
    published.clear()
    before = await everything(database)
    values = {"amount_nanos": 1, "reference": "R", "idempotency_key": "k", **wanted}
    with pytest.raises(InvalidInput):
        async with work_as(operator) as work:
            await top_up(work, org.id, **values)
    assert await everything(database) == before
    assert published == []


async def test_all_that_can_be_credited_is_kept_exactly(
    work_as, operator, org, database, installation
) -> None:
    await opened(work_as, operator, org, MONEY_NANOS_MAX)
    [limit] = await limit_of(database, org, installation.settings)
    assert limit["cap"] == await balance_of(database, org) == MONEY_NANOS_MAX


async def test_the_threshold_is_changed_at_the_version_seen(
    work_as, operator, org, database, published
) -> None:
    await opened(work_as, operator, org)
    published.clear()
    async with work_as(operator) as work:
        row = await update_wallet(work, org.id, low_balance_threshold_nanos=7, expected_version=1)
    assert (row.version, row.low_balance_threshold_nanos) == (2, 7)
    before = await everything(database)
    async with work_as(operator) as work:
        await update_wallet(work, org.id, low_balance_threshold_nanos=7, expected_version=2)
    for values, fault in (((7, 1), StaleVersion), ((-1, 2), InvalidInput)):
        with pytest.raises(fault):
            async with work_as(operator) as work:
                await update_wallet(
                    work,
                    org.id,
                    low_balance_threshold_nanos=values[0],
                    expected_version=values[1],
                )
    assert await everything(database) == before
    assert published == []


async def test_only_the_operator_books(
    work_as, operator, org, foreign, database, published, make_record
) -> None:
    await opened(work_as, operator, org, 100)
    request_id = await spend(database, make_record, org, 10)
    published.clear()
    before = await everything(database)
    amount = {"amount_nanos": 1, "idempotency_key": "k"}
    for caller in (*org.callers().values(), foreign.admin):
        for change in (
            lambda work: open_wallet(work, org.id, idempotency_key="k"),
            lambda work: top_up(work, org.id, reference="R", **amount),
            lambda work: adjust(work, org.id, note="n", **amount),
            lambda work: refund(work, org.id, request_id=request_id, **amount),
            lambda work: update_wallet(
                work, org.id, low_balance_threshold_nanos=1, expected_version=1
            ),
        ):
            with pytest.raises((NotPermitted, NotFound)):
                async with work_as(caller) as work:
                    await change(work)
    assert await everything(database) == before
    assert published == []


async def test_without_a_wallet_there_is_nothing_to_book_on(
    work_as, operator, org, database
) -> None:
    before = await everything(database)
    with pytest.raises(NotFound):
        async with work_as(operator) as work:
            await top_up(work, org.id, amount_nanos=1, reference="R", idempotency_key="k")
    assert await everything(database) == before


async def test_two_processes_with_one_idempotency_key_book_once(
    work_as, operator, org, processes, installation
) -> None:
    await opened(work_as, operator, org)
    places = processes[:2]
    ids: list[UUID] = []

    async def book(place: Database, key: str) -> None:
        async with unit_of_work(place, installation, Events(), operator) as work:
            row = await top_up(work, org.id, amount_nanos=3, reference="R", idempotency_key=key)
            ids.append(row.id)

    for number in range(5):
        await asyncio.gather(*(book(place, str(number)) for place in places))
    # Different keys at once are all booked, one after the other.
    await asyncio.gather(*(book(place, f"x{number}") for number, place in enumerate(places)))
    found = await entries_of(places[0], org)
    assert len(set(ids)) == 7
    assert [each.seq for each in found] == list(range(1, 8))
    assert [each.balance_after_nanos for each in found] == list(range(3, 22, 3))
