"""Plans in the API."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated
from uuid import UUID

import strawberry

from controlplane.api.connections import After, Connection, First, connection_of, page_by_id
from controlplane.api.nodes import Node, NodeKind, global_id
from controlplane.api.request import Info
from controlplane.api.scalars import BigInt, Money
from controlplane.plans import models
from controlplane.plans.queries import plans

# Plans belong to no organization.
_NOWHERE = UUID(int=0)

IncludeArchived = Annotated[
    bool, strawberry.argument(description="Whether to show those with `archivedAt`, too.")
]


@strawberry.type(description="What a plan adds to a request in one currency.")
class PlanFee:
    """What a plan adds to a request in one currency."""

    currency: str = strawberry.field(description="The currency of an organization, ISO 4217.")
    amount: Money = strawberry.field(description="Added to each request that costs anything.")


@strawberry.type(description="What an organization pays, and how much it may ask for.")
class Plan(Node):
    """What an organization pays, and how much it may ask for."""

    name: str = strawberry.field(description="Name for people, unique for ever.")
    markup_ppm: int = strawberry.field(
        description="Added to the provider's price, in millionths of it: 150000 is 15 %."
    )
    fees: list[PlanFee] = strawberry.field(
        description="Added to each request, for each currency; none: no fee in any."
    )
    requests_per_month: BigInt | None = strawberry.field(
        description="Most requests of an organization in a month of UTC; null: any number."
    )
    requests_per_day: BigInt | None = strawberry.field(
        description="Most requests of an organization in a day of UTC; null: any number."
    )
    requests_per_minute: BigInt | None = strawberry.field(
        description="Most requests of an organization in any 60 seconds; null: any number."
    )
    created_at: datetime = strawberry.field(description="When it was created.")
    archived_at: datetime | None = strawberry.field(
        description="Since when no organization can be put on it; who is on it stays."
    )
    version: int = strawberry.field(description="Counts changes; see `expectedVersion`.")


def plan_of(row: models.Plan) -> Plan:
    """Show a plan."""
    return Plan(
        id=global_id(NodeKind.PLAN, _NOWHERE, row.id),
        name=row.name,
        markup_ppm=row.markup_ppm,
        fees=[
            PlanFee(currency=currency, amount=Money(nanos))
            for currency, nanos in sorted(row.fees.items())
        ],
        requests_per_month=_optional(row.requests_per_month),
        requests_per_day=_optional(row.requests_per_day),
        requests_per_minute=_optional(row.requests_per_minute),
        created_at=row.created_at,
        archived_at=row.archived_at,
        version=row.version,
    )


async def load_plan(info: Info, plan_id: UUID | None) -> Plan | None:
    """Load a plan by a reference to it."""
    row = None if plan_id is None else await info.context.loaders.plans.load(plan_id)
    return None if row is None else plan_of(row)


async def page_of_plans(
    info: Info, first: First, after: After, *, include_archived: bool
) -> Connection[Plan] | None:
    """List plans, newest first; None for all but the operator.

    Raises `InvalidInput`.
    """
    if not info.context.caller.operator:
        return None
    query = plans(include_archived=include_archived)
    async with info.context.backend.database.read() as session:
        rows, has_next = await page_by_id(session, query, models.Plan.id, first=first, after=after)
    return connection_of(rows, plan_of, lambda row: row.id, has_next=has_next, after=after)


def _optional(number: int | None) -> BigInt | None:
    return None if number is None else BigInt(number)
