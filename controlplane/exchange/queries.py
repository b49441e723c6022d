"""Reads of exchange rates."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from uuid import UUID

from sqlalchemy import Select, func, select
from sqlalchemy.ext.asyncio import AsyncSession

from controlplane.clock import nanoseconds
from controlplane.currencies import BASE_CURRENCY
from controlplane.exchange.models import ExchangeRate
from controlplane.exchange.rate import RATES_TOLD_MAX, SAME_CURRENCY, Rate, told
from controlplane.tenancy.models import Organization

# Corrections of rates to come are entered again from the same instant, and only the last is told.
_ROWS_READ_MAX = 2 * RATES_TOLD_MAX


async def rates_of(session: AsyncSession, currency: str) -> list[Rate]:
    """List the rates of a currency as the engine reads them; none when it has none."""
    if currency == BASE_CURRENCY:
        return list(SAME_CURRENCY)
    order = (ExchangeRate.starts_at.desc(), ExchangeRate.version.desc())
    query = exchange_rates(currency).order_by(*order).limit(_ROWS_READ_MAX)
    rows = list(await session.scalars(query))
    return told(Rate(nanoseconds(row.starts_at), row.picos) for row in reversed(rows))


async def latest_version(session: AsyncSession, currency: str) -> int | None:
    """Tell how many rates of a currency have been entered; None when none has."""
    return await session.scalar(
        select(func.max(ExchangeRate.version)).where(ExchangeRate.currency == currency)
    )


async def count_ahead(session: AsyncSession, currency: str, now: datetime) -> int:
    """Count the rates of a currency that do not hold yet."""
    query = select(func.count()).select_from(ExchangeRate)
    conditions = (ExchangeRate.currency == currency, ExchangeRate.starts_at > now)
    return await session.scalar(query.where(*conditions)) or 0


async def in_force(
    session: AsyncSession, currencies: Collection[str], now: datetime
) -> dict[str, ExchangeRate]:
    """Find the rate of each currency that holds now; a currency without one is absent."""
    place = func.row_number().over(
        partition_by=ExchangeRate.currency,
        order_by=(ExchangeRate.starts_at.desc(), ExchangeRate.version.desc()),
    )
    ranked = (
        select(ExchangeRate.id, place.label("place"))
        .where(ExchangeRate.currency.in_(currencies), ExchangeRate.starts_at <= now)
        .subquery()
    )
    chosen = select(ranked.c.id).where(ranked.c.place == 1)
    rows = await session.scalars(select(ExchangeRate).where(ExchangeRate.id.in_(chosen)))
    return {row.currency: row for row in rows}


def exchange_rates(currency: str | None) -> Select[ExchangeRate]:
    """Select the rates of a currency, or of all."""
    query = select(ExchangeRate)
    return query if currency is None else query.where(ExchangeRate.currency == currency)


async def organizations_in(session: AsyncSession, currency: str) -> list[UUID]:
    """List the organizations whose money is in a currency."""
    query = select(Organization.id).where(Organization.currency == currency)
    return list(await session.scalars(query.order_by(Organization.id)))
