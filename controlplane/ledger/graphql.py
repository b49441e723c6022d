"""What settlements and breakers caused, in the API: crossings of thresholds, breaker events."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

import strawberry
from sqlalchemy import Select, select

from controlplane.api.connections import Connection, connection_of, page_by_id
from controlplane.api.fields import resolved
from controlplane.api.request import Info
from controlplane.api.scalars import Money
from controlplane.authz import Caller
from controlplane.breakers.graphql import Breaker, BreakerState, load_breaker
from controlplane.clock import instant
from controlplane.ledger.models import BreakerEventRow, ThresholdCrossingRow
from controlplane.limits.graphql import Budget, budget_of
from controlplane.limits.models import Limit, LimitKind, ScopeKind
from controlplane.limits.nesting import BREAKER_WINDOWS_S, breaker_id
from controlplane.limits.queries import visible_scopes
from controlplane.limits.subjects import Scope


@strawberry.type(description="What a budget had booked reached a percentage of it.")
class ThresholdCrossing:
    """What a budget had booked reached a percentage of it."""

    percent: int = strawberry.field(description="The percentage, 1 to 100.")
    repeated: bool = strawberry.field(
        description="Whether this was told before in the period: a soft budget is still passed."
    )
    period_start: datetime = strawberry.field(description="When the budget's period began.")
    settled: Money = strawberry.field(description="What was booked in the period by then.")
    cap: Money = strawberry.field(description="The budget's limit then.")
    at: datetime = strawberry.field(description="When the request was booked that reached it.")
    row: strawberry.Private[ThresholdCrossingRow]

    @resolved("The budget; null when it has been lifted since.")
    async def budget(self, info: Info) -> Budget | None:
        """Load the budget."""
        row = await info.context.loaders.limits.load((self.row.organization_id, self.row.limit_id))
        return None if row is None or row.archived_at is not None else budget_of(row)


@strawberry.type(description="One window of a breaker has opened or closed.")
class BreakerEvent:
    """One window of a breaker has opened or closed."""

    window_seconds: int = strawberry.field(description="Which window: 60 or 3600.")
    state: BreakerState = strawberry.field(description="What it became.")
    spent: Money = strawberry.field(description="What was spent in the window then.")
    threshold: Money = strawberry.field(description="The spending at which it opened then.")
    at: datetime = strawberry.field(description="When it happened.")
    row: strawberry.Private[BreakerEventRow]

    @resolved("The breaker.")
    async def breaker(self, info: Info) -> Breaker:
        """Load the breaker."""
        scope = Scope(self.row.scope_kind, self.row.scope_id)
        return await load_breaker(info, self.row.organization_id, scope)


async def crossings_of(
    info: Info, organization_id: UUID, first: int, after: str | None
) -> Connection[ThresholdCrossing]:
    """List the crossings of budgets that the caller may see, newest first."""
    query = _crossings(info.context.caller, organization_id)
    async with info.context.backend.database.read() as session:
        rows, has_next = await page_by_id(
            session, query, ThresholdCrossingRow.id, first=first, after=after
        )
    return connection_of(rows, _crossing, lambda row: row.id, has_next=has_next, after=after)


async def breaker_events_of(
    info: Info, organization_id: UUID, first: int, after: str | None
) -> Connection[BreakerEvent]:
    """List the events of breakers whose scopes the caller may see, newest first."""
    columns = (BreakerEventRow.scope_kind, BreakerEventRow.scope_id)
    query = select(BreakerEventRow).where(
        BreakerEventRow.organization_id == organization_id,
        visible_scopes(info.context.caller, organization_id, columns),
    )
    async with info.context.backend.database.read() as session:
        rows, has_next = await page_by_id(
            session, query, BreakerEventRow.id, first=first, after=after
        )
    return connection_of(rows, _breaker_event, lambda row: row.id, has_next=has_next, after=after)


def _crossings(caller: Caller, organization_id: UUID) -> Select[Any]:
    limits = select(Limit.id).where(
        Limit.organization_id == organization_id,
        Limit.kind == LimitKind.BUDGET,
        visible_scopes(caller, organization_id, (Limit.scope_kind, Limit.scope_id)),
    )
    return select(ThresholdCrossingRow).where(
        ThresholdCrossingRow.organization_id == organization_id,
        ThresholdCrossingRow.limit_id.in_(limits),
    )


def _crossing(row: ThresholdCrossingRow) -> ThresholdCrossing:
    return ThresholdCrossing(
        percent=row.percent,
        repeated=row.repeated_at_ns > 0,
        period_start=instant(row.period_start_ns),
        settled=Money(row.settled),
        cap=Money(row.cap),
        at=instant(row.at_ns),
        row=row,
    )


def _breaker_event(row: BreakerEventRow) -> BreakerEvent:
    return BreakerEvent(
        window_seconds=_window_s(row.scope_kind, row.scope_id, row.limit_id),
        state=BreakerState.OPEN if row.is_open else BreakerState.CLOSED,
        spent=Money(row.sum_nanos),
        threshold=Money(row.cap_nanos),
        at=instant(row.at_ns),
        row=row,
    )


def _window_s(kind: ScopeKind, scope_id: UUID, limit_id: UUID) -> int:
    minute_s, hour_s = BREAKER_WINDOWS_S
    return minute_s if limit_id == breaker_id(kind, scope_id, minute_s) else hour_s
