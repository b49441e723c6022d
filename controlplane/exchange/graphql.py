"""Exchange rates in the API."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated
from uuid import UUID

import strawberry

from controlplane.api.connections import After, Connection, First, connection_of, page_by_id
from controlplane.api.faults import UserError, attempt
from controlplane.api.fields import mutation, resolved
from controlplane.api.nodes import Node, NodeKind, global_id
from controlplane.api.request import Info
from controlplane.context import Work
from controlplane.exchange import models, service
from controlplane.exchange.queries import exchange_rates
from controlplane.exchange.rate import format_rate
from controlplane.inputs import checked_currency
from controlplane.tenancy.graphql import User, user_of

# Rates belong to no organization.
_NOWHERE = UUID(int=0)

OfCurrency = Annotated[
    str | None, strawberry.argument(description="Only those of this currency; null: of all.")
]


@strawberry.type(description="What one unit of the currency of prices is worth in another.")
class ExchangeRate(Node):
    """What one unit of the base currency is worth in another, from an instant on."""

    currency: str = strawberry.field(description="The other currency, ISO 4217.")
    rate: str = strawberry.field(
        description='Units of it for one of the currency of prices, an exact decimal as "0.9215".'
    )
    starts_at: datetime = strawberry.field(
        name="from", description="Since when it holds, until a later one does."
    )
    entered_at: datetime = strawberry.field(description="When it was entered.")
    version: int = strawberry.field(
        description="Counts the rates of this currency; see `expectedVersion`. Of two from one "
        "instant the later version holds."
    )
    row: strawberry.Private[models.ExchangeRate]

    @resolved("Who entered it; null for all but the operator.")
    async def entered_by(self, info: Info) -> User | None:
        """Load the person."""
        if self.row.entered_by is None or not info.context.caller.operator:
            return None
        row = await info.context.loaders.users.load(self.row.entered_by)
        return None if row is None else user_of(row)


@strawberry.input(description="An exchange rate to enter.")
class ExchangeRateSetInput:
    """An exchange rate to enter."""

    currency: str = strawberry.field(description="The other currency, ISO 4217.")
    rate: str = strawberry.field(
        description='Units of it for one of the currency of prices, as in "0.9215"; above 0, at '
        "most 7 digits before the point and 12 behind it."
    )
    starts_at: datetime | None = strawberry.field(
        name="from",
        default=None,
        description="Since when it shall hold, never in the past; null: from now on.",
    )
    expected_version: int | None = strawberry.field(
        default=None,
        description="The latest version of the currency you have seen; null for its first rate.",
    )


@strawberry.type(description="The rate, or why nothing was changed.")
class ExchangeRatePayload:
    """The rate, or why nothing was changed."""

    exchange_rate: ExchangeRate | None = strawberry.field(
        description="The rate; null when there are errors."
    )
    errors: list[UserError] = strawberry.field(description="What you can mend.")


def exchange_rate_of(row: models.ExchangeRate) -> ExchangeRate:
    """Show an exchange rate."""
    return ExchangeRate(
        id=global_id(NodeKind.EXCHANGE_RATE, _NOWHERE, row.id),
        currency=row.currency,
        rate=format_rate(row.picos),
        starts_at=row.starts_at,
        entered_at=row.entered_at,
        version=row.version,
        row=row,
    )


async def load_exchange_rate(info: Info, currency: str) -> ExchangeRate | None:
    """Load the rate of a currency that holds now; there is none for the base currency."""
    row = await info.context.loaders.exchange_rates.load(currency)
    return None if row is None else exchange_rate_of(row)


async def page_of_exchange_rates(
    info: Info, currency: str | None, first: First, after: After
) -> Connection[ExchangeRate] | None:
    """List rates, the last entered first; None for all but the operator.

    Raises `InvalidInput`.
    """
    if not info.context.caller.operator:
        return None
    query = exchange_rates(None if currency is None else checked_currency(currency))
    async with info.context.backend.database.read() as session:
        rows, has_next = await page_by_id(
            session, query, models.ExchangeRate.id, first=first, after=after
        )
    return connection_of(rows, exchange_rate_of, lambda row: row.id, has_next=has_next, after=after)


@strawberry.type
class ExchangeMutation:
    """Changes to exchange rates."""

    @mutation("Enter an exchange rate; it is never changed afterwards. For the operator.")
    async def exchange_rate_set(
        self,
        info: Info,
        input: ExchangeRateSetInput,  # noqa: A002
    ) -> ExchangeRatePayload:
        """Enter an exchange rate."""

        async def change(work: Work) -> models.ExchangeRate:
            return await service.set_exchange_rate(
                work,
                currency=input.currency,
                rate=input.rate,
                starts_at=input.starts_at,
                expected_version=input.expected_version,
            )

        row, errors = await attempt(info, change)
        return ExchangeRatePayload(
            exchange_rate=None if row is None else exchange_rate_of(row), errors=errors
        )
