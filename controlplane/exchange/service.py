"""Changes to exchange rates and to the currency of organizations; each puts itself on record."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from sqlalchemy import exists, select

from controlplane.audit.service import facts, record
from controlplane.authz import Action, Target, require, require_operator
from controlplane.context import Work
from controlplane.currencies import BASE_CURRENCY
from controlplane.errors import Conflict, InvalidInput, LimitExceeded, Subject
from controlplane.exchange import queries
from controlplane.exchange.models import ExchangeRate
from controlplane.exchange.rate import RateFormatError, parse_rate
from controlplane.inputs import checked_currency
from controlplane.ledger.models import LedgerEntryRow
from controlplane.plans.queries import plan_of
from controlplane.plans.service import check_fee
from controlplane.tenancy.models import Organization
from controlplane.tenancy.queries import locked_organization
from controlplane.tenancy.service import policies_changed, policy_changed
from controlplane.versions import check_version
from controlplane.wallets.models import WalletEntry

# Rates of a currency that do not hold yet; with them the one in force is always told to the engine.
RATES_AHEAD_MAX = 50


async def set_exchange_rate(
    work: Work,
    *,
    currency: str,
    rate: str,
    starts_at: datetime | None = None,
    expected_version: int | None = None,
) -> ExchangeRate:
    """Enter what one unit of the base currency is worth in another; for the operator.

    Without an instant it holds from now on; it never holds for the past, because nothing is valued
    again. The first rate of a currency holds from now on. One that does not hold yet is corrected
    by another from the same instant. `expected_version` is the latest of the currency, None for
    its first: so a repeated call has no second effect.

    Raises `InvalidInput`, `LimitExceeded`, `StaleVersion`, `NotPermitted`.
    """
    require_operator(work.caller)
    if checked_currency(currency) == BASE_CURRENCY:
        raise InvalidInput(f"{BASE_CURRENCY} is what prices are in.", field=("currency",))
    picos = _checked_rate(rate)
    latest = await queries.latest_version(work.session, currency)
    check_version(latest, expected_version, await _subject(work, currency))
    row = ExchangeRate(
        id=work.new_id(),
        currency=currency,
        version=(latest or 0) + 1,
        picos=picos,
        starts_at=await _checked_start(work, currency, starts_at, latest),
        entered_by=work.caller.user_id,
        entered_at=work.now,
    )
    work.session.add(row)
    await work.session.flush()
    record(work, "exchange_rate.set", row, organization_id=None, after=facts(row))
    await policies_changed(work, await queries.organizations_in(work.session, currency))
    return row


async def set_currency(
    work: Work, organization_id: UUID, *, currency: str, expected_version: int
) -> Organization:
    """Change the currency of an organization in which nothing has been booked; for the operator.

    The amounts of its limits stay the numbers they are.

    Raises `InvalidInput`, `Conflict` when something was booked or its plan has no fee in the
    currency, `StaleVersion`, `NotFound`, `NotPermitted`.
    """
    require(work.caller, Action.BILLING_WRITE, Target(organization_id), "organization")
    row = await locked_organization(work.session, organization_id)
    subject = Subject("organizations", row.id, row.id)
    check_version(row.version, expected_version, subject)
    checked_currency(currency)
    if currency == row.currency:
        return row
    if await _is_booked(work, organization_id):
        raise Conflict("Money was booked in its currency already.", field=("currency",))
    plan = await plan_of(work.session, row)
    if plan is not None:
        check_fee(plan, currency, "currency")
    before = facts(row)
    row.currency = currency
    await work.session.flush()
    record(
        work,
        "organization.set_currency",
        row,
        organization_id=organization_id,
        before=before,
        after=facts(row),
    )
    await policy_changed(work, organization_id)
    return row


async def _is_booked(work: Work, organization_id: UUID) -> bool:
    for table in (LedgerEntryRow, WalletEntry):
        query = select(exists().where(table.organization_id == organization_id))
        if await work.session.scalar(query):
            return True
    return False


async def _checked_start(
    work: Work, currency: str, starts_at: datetime | None, latest: int | None
) -> datetime:
    if starts_at is None or starts_at == work.now:
        return work.now
    if starts_at < work.now:
        raise InvalidInput("A rate never holds for the past.", field=("from",))
    if latest is None:
        raise InvalidInput("The first rate of a currency holds from now on.", field=("from",))
    if await queries.count_ahead(work.session, currency, work.now) >= RATES_AHEAD_MAX:
        raise LimitExceeded(
            f"A currency has at most {RATES_AHEAD_MAX} rates ahead of time.",
            maximum=RATES_AHEAD_MAX,
            field=("from",),
        )
    return starts_at


def _checked_rate(text: str) -> int:
    try:
        return parse_rate(text)
    except RateFormatError as error:
        raise InvalidInput(str(error), field=("rate",)) from error


async def _subject(work: Work, currency: str) -> Subject | None:
    query = queries.exchange_rates(currency).order_by(ExchangeRate.version.desc()).limit(1)
    row = await work.session.scalar(query)
    return None if row is None else Subject("exchange_rates", UUID(int=0), row.id)
