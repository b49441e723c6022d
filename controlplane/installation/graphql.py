"""Limits of providers and of the installation in the API; for the operator alone."""

from __future__ import annotations

from enum import StrEnum

import strawberry
from sqlalchemy import false, true

from controlplane.api.connections import (
    FIRST_DEFAULT,
    After,
    Connection,
    First,
    connection_of,
    page_by_id,
)
from controlplane.api.faults import UserError, attempt
from controlplane.api.fields import enumeration, mutation, resolved
from controlplane.api.nodes import Node, NodeKind, expect, global_id
from controlplane.api.request import Info
from controlplane.api.scalars import BigInt, Money
from controlplane.context import Work
from controlplane.errors import InvalidInput
from controlplane.limits import installation as service
from controlplane.limits.graphql import Enforcement
from controlplane.limits.installation import NOWHERE, sees_installation
from controlplane.limits.models import InstallationLimit as Row
from controlplane.limits.models import Mode, Period, Resource
from controlplane.limits.queries import live_installation_limits
from controlplane.scope import not_found


class Counted(StrEnum):
    """What a limit counts."""

    SPEND = "spend"
    REQUESTS = "requests"
    TOKENS = "tokens"
    CONCURRENCY = "concurrency"


enumeration(
    Counted,
    "Counted",
    "What a limit counts.",
    {
        Counted.SPEND: "Cost in the currency of the price sheet, over a calendar period.",
        Counted.REQUESTS: "Requests in any 60 seconds.",
        Counted.TOKENS: "Tokens in any 60 seconds.",
        Counted.CONCURRENCY: "Requests under way at once.",
    },
)


@strawberry.type(description="What all organizations together may do, at a provider or at all.")
class InstallationLimit(Node):
    """What all organizations together may do."""

    provider: str | None = strawberry.field(
        description="At which provider; null: in all of the installation."
    )
    counts: Counted = strawberry.field(description="What it counts.")
    period: Period | None = strawberry.field(description="Of spending: the calendar period.")
    timezone: str | None = strawberry.field(description="Of spending: whose calendar counts.")
    amount: Money | None = strawberry.field(
        description="How much may be spent, in the currency of the price sheet; null: it counts "
        "something else."
    )
    count: BigInt | None = strawberry.field(description="How many there may be; null: of spending.")
    enforcement: Enforcement = strawberry.field(description="Whether it refuses.")
    version: int = strawberry.field(description="Counts changes; see `expectedVersion`.")


@strawberry.input(description="A limit of a provider or of the installation, to create or change.")
class InstallationLimitSetInput:
    """A limit of a provider or of the installation."""

    counts: Counted = strawberry.field(description="What it counts.")
    provider: str | None = strawberry.field(
        default=None, description="At which provider; left out: in all of the installation."
    )
    amount: Money | None = strawberry.field(
        default=None,
        description="How much may be spent, in the currency of the price sheet; of spending.",
    )
    count: BigInt | None = strawberry.field(
        default=None, description="How many there may be; of anything else."
    )
    period: Period | None = strawberry.field(
        default=None, description="The calendar period; of spending, and only there."
    )
    timezone: str = strawberry.field(
        default="UTC", description="The time zone whose calendar counts."
    )
    enforcement: Enforcement = strawberry.field(
        default=Enforcement.HARD, description="Whether it refuses."
    )
    expected_version: int | None = strawberry.field(
        default=None, description="The version you have seen; null creates."
    )

    def cap(self) -> int:
        """Read the amount or the count.

        Raises `InvalidInput` unless exactly the one that fits is given.
        """
        is_money = self.counts is Counted.SPEND
        wanted, other = (self.amount, self.count) if is_money else (self.count, self.amount)
        if wanted is None or other is not None:
            name = "amount" if is_money else "count"
            raise InvalidInput("Give an amount of spending, else a count.", field=(name,))
        return wanted


@strawberry.input(description="A limit of a provider or of the installation, to lift.")
class InstallationLimitArchiveInput:
    """A limit of a provider or of the installation, to lift."""

    installation_limit_id: strawberry.ID = strawberry.field(description="The limit.")
    expected_version: int = strawberry.field(description="The version you have seen.")


@strawberry.type(description="The limit, or why nothing was changed.")
class InstallationLimitPayload:
    """The limit, or why nothing was changed."""

    installation_limit: InstallationLimit | None = strawberry.field(
        description="The limit; null when errors."
    )
    errors: list[UserError] = strawberry.field(description="What you can mend.")


@strawberry.type
class InstallationQuery:
    """What the operator asks."""

    @resolved(
        "Limits of providers and of the installation, newest first; none unless you operate it."
    )
    async def installation_limits(
        self, info: Info, first: First = FIRST_DEFAULT, after: After = None
    ) -> Connection[InstallationLimit]:
        """List limits beyond organizations."""
        is_seen = true() if sees_installation(info.context.caller) else false()
        query = live_installation_limits().where(is_seen)
        async with info.context.backend.database.read() as session:
            rows, has_next = await page_by_id(session, query, Row.id, first=first, after=after)
        return connection_of(
            rows, installation_limit_of, lambda row: row.id, has_next=has_next, after=after
        )


@strawberry.type
class InstallationMutation:
    """What the operator sets."""

    @mutation("Limit a provider, or all of the installation. For the operator.")
    async def installation_limit_set(
        self,
        info: Info,
        input: InstallationLimitSetInput,  # noqa: A002
    ) -> InstallationLimitPayload:
        """Limit a provider, or all of the installation."""

        async def change(work: Work) -> Row:
            return await service.set_installation_limit(
                work,
                provider=input.provider,
                resource=Resource(input.counts.value),
                cap=input.cap(),
                period=input.period,
                time_zone=input.timezone,
                mode=Mode(input.enforcement.value),
                expected_version=input.expected_version,
            )

        return _payload(*await attempt(info, change))

    @mutation("Lift a limit of a provider or of the installation. For the operator.")
    async def installation_limit_archive(
        self,
        info: Info,
        input: InstallationLimitArchiveInput,  # noqa: A002
    ) -> InstallationLimitPayload:
        """Lift a limit of a provider or of the installation."""

        async def change(work: Work) -> Row:
            kind = NodeKind.INSTALLATION_LIMIT
            name = expect(input.installation_limit_id, kind, "limit")
            if name.organization_id != NOWHERE:
                raise not_found("limit")
            return await service.archive_installation_limit(
                work, name.id, expected_version=input.expected_version
            )

        return _payload(*await attempt(info, change))


def installation_limit_of(row: Row) -> InstallationLimit:
    """Show a limit of a provider or of the installation."""
    is_money = row.resource is Resource.SPEND
    # That tokens are counted when they are known is no other enforcement.
    mode = Mode.HARD if row.mode is Mode.METERED else row.mode
    return InstallationLimit(
        id=global_id(NodeKind.INSTALLATION_LIMIT, NOWHERE, row.id),
        provider=row.label or None,
        counts=Counted(row.resource.value),
        period=row.window_period,
        timezone=row.window_time_zone,
        amount=Money(row.cap) if is_money else None,
        count=None if is_money else BigInt(row.cap),
        enforcement=Enforcement(mode.value),
        version=row.version,
    )


def _payload(row: Row | None, errors: list[UserError]) -> InstallationLimitPayload:
    return InstallationLimitPayload(
        installation_limit=None if row is None else installation_limit_of(row), errors=errors
    )
