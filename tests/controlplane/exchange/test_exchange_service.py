"""Exchange rates are entered once and for the future; currencies change while nothing is booked."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest
from sqlalchemy import select

from controlplane.audit.models import AdminEvent
from controlplane.authz import SYSTEM
from controlplane.clock import nanoseconds
from controlplane.errors import (
    Conflict,
    InvalidInput,
    LimitExceeded,
    NotFound,
    NotPermitted,
    StaleVersion,
)
from controlplane.events import OrganizationChanged
from controlplane.exchange.models import ExchangeRate
from controlplane.exchange.rate import PICOS_PER_UNIT
from controlplane.exchange.service import RATES_AHEAD_MAX, set_currency, set_exchange_rate
from controlplane.ledger.batches import write_batch
from controlplane.plans.service import create_plan, set_plan
from controlplane.policies.snapshot import organization_snapshot
from controlplane.tenancy.models import Organization
from controlplane.tenancy.service import create_organization
from controlplane.wallets.service import open_wallet, top_up
from tests.controlplane.everything import everything


@pytest.fixture
async def euro(work_as, published):
    """An organization whose money is in euros."""
    async with work_as(SYSTEM) as work:
        row = await create_organization(work, slug="euro", name="Euro", currency="EUR")
    published.clear()
    return row.id


async def charging_of(database, organization_id, settings):
    async with database.read() as session:
        raw = await organization_snapshot(session, organization_id, settings)
    return json.loads(raw)["charging"]


async def put_rate(work_as, operator, rate, **wanted):
    async with work_as(operator) as work:
        return await set_exchange_rate(work, currency="EUR", rate=rate, **wanted)


async def test_the_currency_of_prices_is_worth_itself(org, database, installation) -> None:
    assert await charging_of(database, org.id, installation.settings) == {
        "rates": [{"from_ns": 0, "picos": PICOS_PER_UNIT}],
        "markup_ppm": 0,
        "fee_nanos": 0,
    }


async def test_a_currency_without_a_rate_has_none(euro, database, installation) -> None:
    assert (await charging_of(database, euro, installation.settings))["rates"] == []


async def test_rates_reach_the_organizations_of_their_currency(
    work_as, operator, org, euro, database, installation, published
) -> None:
    first = await put_rate(work_as, operator, "0.92")
    assert published == [OrganizationChanged(euro, policy=True)]
    later = installation.now() + timedelta(days=1)
    second = await put_rate(work_as, operator, "0.95", starts_at=later, expected_version=1)
    assert (first.version, second.version) == (1, 2)
    found = await charging_of(database, euro, installation.settings)
    assert found["rates"] == [
        {"from_ns": 0, "picos": 920_000_000_000},
        {"from_ns": nanoseconds(later), "picos": 950_000_000_000},
    ]
    corrected = await put_rate(work_as, operator, "0.94", starts_at=later, expected_version=2)
    found = await charging_of(database, euro, installation.settings)
    assert [each["picos"] for each in found["rates"]] == [920_000_000_000, 940_000_000_000]
    async with database.read() as session:
        events = list(
            await session.scalars(
                select(AdminEvent).where(AdminEvent.action == "exchange_rate.set")
            )
        )
    assert {each.target_id for each in events} == {first.id, second.id, corrected.id}
    assert {(each.organization_id, each.actor_id) for each in events} == {(None, operator.user_id)}


@pytest.mark.parametrize(
    ("wanted", "fault"),
    [
        ({"currency": "USD"}, InvalidInput),
        ({"currency": "EURO"}, InvalidInput),
        ({"currency": "XXX"}, InvalidInput),
        ({"rate": "0"}, InvalidInput),
        ({"ahead_s": -1}, InvalidInput),
        ({"expected_version": None}, StaleVersion),
        ({"expected_version": 2}, StaleVersion),
        ({"currency": "TWD", "expected_version": None, "ahead_s": 1}, InvalidInput),
    ],
)
async def test_a_rate_that_cannot_be_entered_changes_nothing(
    work_as, operator, euro, database, installation, published, wanted, fault
) -> None:
    await put_rate(work_as, operator, "0.92")
    published.clear()
    before = await everything(database)
    values = {"currency": "EUR", "rate": "0.93", "expected_version": 1, **wanted}
    ahead_s = values.pop("ahead_s", None)
    if ahead_s is not None:
        values["starts_at"] = installation.now() + timedelta(seconds=ahead_s)
    with pytest.raises(fault):
        async with work_as(operator) as work:
            await set_exchange_rate(work, **values)
    assert await everything(database) == before
    assert published == []


async def test_only_so_many_rates_are_entered_ahead(
    work_as, operator, database, installation, clock
) -> None:
    await put_rate(work_as, operator, "1")
    for number in range(1, RATES_AHEAD_MAX + 1):
        at = installation.now() + timedelta(hours=number)
        await put_rate(work_as, operator, "1", starts_at=at, expected_version=number)
    before = await everything(database)
    late = {"starts_at": at + timedelta(hours=1), "expected_version": RATES_AHEAD_MAX + 1}
    with pytest.raises(LimitExceeded):
        await put_rate(work_as, operator, "1", **late)
    assert await everything(database) == before
    clock.advance_ns(3600 * 10**9)
    await put_rate(work_as, operator, "1", **late)


async def test_only_the_operator_enters_rates(work_as, org, database) -> None:
    before = await everything(database)
    for caller in org.callers().values():
        with pytest.raises(NotPermitted):
            await put_rate(work_as, caller, "0.92")
    assert await everything(database) == before


async def test_a_currency_changes_while_nothing_is_booked(
    work_as, operator, org, database, published
) -> None:
    async with work_as(operator) as work:
        row = await set_currency(work, org.id, currency="TWD", expected_version=1)
    assert (row.currency, row.version) == ("TWD", 2)
    assert published == [OrganizationChanged(org.id, policy=True)]


async def test_a_currency_stays_once_something_is_booked(
    work_as, operator, org, database, make_record
) -> None:
    async with database.write() as session:
        await write_batch(session, [make_record(organization_id=org.id, seq=1)])
    await refused(work_as, operator, org, database, Conflict)


async def test_a_currency_stays_once_a_wallet_has_entries(work_as, operator, org, database) -> None:
    async with work_as(operator) as work:
        await open_wallet(work, org.id, idempotency_key="1")
        await top_up(work, org.id, amount_nanos=1, reference="r", idempotency_key="2")
    await refused(work_as, operator, org, database, Conflict)


async def test_a_currency_stays_where_the_plan_has_no_fee_in_the_new_one(
    work_as, operator, org, database
) -> None:
    async with work_as(operator) as work:
        plan = await create_plan(work, {"name": "p", "fees": {"USD": 1}})
        await set_plan(work, org.id, plan.id, expected_version=1)
    await refused(work_as, operator, org, database, Conflict, expected_version=2)


async def test_who_may_not_bill_changes_no_currency(
    work_as, org, foreign, operator, database
) -> None:
    await refused(work_as, org.admin, org, database, NotPermitted)
    await refused(work_as, foreign.admin, org, database, NotFound)
    await refused(work_as, operator, org, database, StaleVersion, expected_version=2)


async def refused(work_as, caller, org, database, fault, expected_version=1) -> None:
    before = await everything(database)
    with pytest.raises(fault):
        async with work_as(caller) as work:
            await set_currency(work, org.id, currency="EUR", expected_version=expected_version)
    assert await everything(database) == before


async def test_an_organization_has_a_currency_that_exists(work_as, database) -> None:
    before = await everything(database)
    for currency in ("XXX", "eur", "BTC", ""):
        with pytest.raises(InvalidInput):
            async with work_as(SYSTEM) as work:
                await create_organization(work, slug="x", name="X", currency=currency)
    assert await everything(database) == before
    async with work_as(SYSTEM) as work:
        row = await create_organization(work, slug="x", name="X", currency="TWD")
    async with database.read() as session:
        assert (await session.get(Organization, row.id)).currency == "TWD"
        assert list(await session.scalars(select(ExchangeRate))) == []
