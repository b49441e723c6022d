"""An organization in the API, with the lists of everything in it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any, TypeVar
from uuid import UUID

import strawberry
from sqlalchemy import Select
from sqlalchemy.orm import InstrumentedAttribute

from controlplane.api.connections import (
    FIRST_DEFAULT,
    Connection,
    checked_first,
    connect,
    connection_of,
    cursor_of,
    page_by_id,
    read_cursor,
)
from controlplane.api.fields import resolved
from controlplane.api.nodes import Node, NodeKind, global_id
from controlplane.api.request import Info
from controlplane.keys.graphql import KeyFilterInput, VirtualKey, key_of
from controlplane.keys.models import VirtualKey as KeyRow
from controlplane.keys.queries import matching, visible_keys
from controlplane.limits.graphql import (
    Breaker,
    Budget,
    RateLimit,
    breaker_of,
    budget_of,
    rate_limit_of,
)
from controlplane.limits.models import Limit, LimitKind, ScopeKind
from controlplane.limits.queries import (
    LimitPair,
    live_limits,
    pairs_of,
    scopes_with,
    visible_scopes,
)
from controlplane.limits.subjects import Scope
from controlplane.policies.graphql import ModelRule, model_rule_of
from controlplane.policies.models import ModelRule as RuleRow
from controlplane.policies.queries import visible_rules
from controlplane.tenancy import models
from controlplane.tenancy.graphql import Member, Team, member_of, team_of
from controlplane.tenancy.queries import visible_members, visible_teams
from controlplane.usage.graphql import (
    DuringOrEver,
    OfRequests,
    OfUsage,
    RequestLog,
    RequestName,
    request_by_id,
    requests_of,
)
from controlplane.usage.report.buckets import Bucket
from controlplane.usage.report.graphql import (
    TOP_DEFAULT,
    Asked,
    ByBucket,
    ByDimensions,
    OfTag,
    Top,
    UsageReport,
    usage_of,
)
from controlplane.usage.spend.graphql import During, SpendTotals, spend_of

R = TypeVar("R", bound=Any)
T = TypeVar("T")


@strawberry.type(description="A tenant: who spends, within what limits, and what was asked.")
class Organization(Node):
    """A tenant. Lists hold what the caller may see, newest first."""

    slug: str = strawberry.field(description="Name for addresses.")
    name: str = strawberry.field(description="Name for people.")
    currency: str = strawberry.field(description="Currency of all its money, ISO 4217.")
    timezone: str = strawberry.field(description="IANA time zone of its calendar.")
    created_at: datetime = strawberry.field(description="When it was created.")
    row: strawberry.Private[models.Organization]

    @resolved("Its teams.")
    async def teams(
        self, info: Info, first: int = FIRST_DEFAULT, after: str | None = None
    ) -> Connection[Team]:
        """List teams."""
        query = visible_teams(info.context.caller, self.row.id)
        return await _page(info, query, models.Team.id, team_of, first, after)

    @resolved("Its members.")
    async def members(
        self, info: Info, first: int = FIRST_DEFAULT, after: str | None = None
    ) -> Connection[Member]:
        """List members."""
        query = visible_members(info.context.caller, self.row.id)
        return await _page(info, query, models.Member.id, member_of, first, after)

    @resolved("Its keys.")
    async def keys(
        self,
        info: Info,
        first: int = FIRST_DEFAULT,
        after: str | None = None,
        filter: KeyFilterInput | None = None,  # noqa: A002
    ) -> Connection[VirtualKey]:
        """List keys."""
        now = info.context.backend.installation.now()
        query = visible_keys(info.context.caller, self.row.id)
        if filter is not None:
            query = query.where(matching(filter.as_filter(self.id), now))
        return await _page(info, query, KeyRow.id, lambda row: key_of(row, now), first, after)

    @resolved("Its budgets, and those of its teams, members and keys.")
    async def budgets(
        self, info: Info, first: int = FIRST_DEFAULT, after: str | None = None
    ) -> Connection[Budget]:
        """List budgets."""
        columns = (Limit.scope_kind, Limit.scope_id)
        query = live_limits(self.row.id).where(
            Limit.kind == LimitKind.BUDGET,
            visible_scopes(info.context.caller, self.row.id, columns),
        )
        return await _page(info, query, Limit.id, budget_of, first, after)

    @resolved("Breakers with thresholds of their own.")
    async def breakers(
        self, info: Info, first: int = FIRST_DEFAULT, after: str | None = None
    ) -> Connection[Breaker]:
        """List breakers."""
        pairs, has_next = await self._pairs(info, LimitKind.BREAKER, first, after)
        items = [(cursor_of(pair.scope.id), breaker_of(self.row.id, pair)) for pair in pairs]
        return connect(items, has_next=has_next, has_previous=after is not None)

    @resolved("Rates of keys that have any.")
    async def rate_limits(
        self, info: Info, first: int = FIRST_DEFAULT, after: str | None = None
    ) -> Connection[RateLimit]:
        """List rate limits."""
        pairs, has_next = await self._pairs(info, LimitKind.RATE, first, after)
        items = [(cursor_of(pair.scope.id), rate_limit_of(self.row.id, pair)) for pair in pairs]
        return connect(items, has_next=has_next, has_previous=after is not None)

    @resolved("Model rules in force.")
    async def model_rules(
        self, info: Info, first: int = FIRST_DEFAULT, after: str | None = None
    ) -> Connection[ModelRule]:
        """List model rules."""
        query = visible_rules(info.context.caller, self.row.id)
        return await _page(info, query, RuleRow.id, model_rule_of, first, after)

    @resolved("Requests on record, allowed, refused and failed.")
    async def requests(
        self,
        info: Info,
        first: int = FIRST_DEFAULT,
        after: str | None = None,
        range: DuringOrEver = None,  # noqa: A002
        filter: OfRequests = None,  # noqa: A002
    ) -> Connection[RequestLog]:
        """List requests."""
        return await requests_of(
            info, self.row.id, first=first, after=after, between=range, wanted=filter
        )

    @resolved("A request by its id; null when you may not see it.")
    async def request(self, info: Info, request_id: RequestName) -> RequestLog | None:
        """Find a request."""
        return await request_by_id(info, self.row.id, request_id)

    @resolved("What was spent, over time and by up to two dimensions.")
    async def usage(
        self,
        info: Info,
        range: During,  # noqa: A002
        bucket: ByBucket = Bucket.DAY,
        group_by: ByDimensions = [],  # noqa: B006
        tag: OfTag = None,
        filter: OfUsage = None,  # noqa: A002
        top: Top = TOP_DEFAULT,
    ) -> UsageReport:
        """Report on requests."""
        asked = Asked(range, bucket, group_by, tag, filter, top)
        return await usage_of(info, self.row, asked)

    @resolved("What the requests you may see add up to.")
    async def spend(self, info: Info, range: During) -> SpendTotals:  # noqa: A002
        """Add up spending."""
        return await spend_of(info, self.row.id, ScopeKind.ORGANIZATION, self.row.id, range)

    async def _pairs(
        self, info: Info, kind: LimitKind, first: int, after: str | None
    ) -> tuple[list[LimitPair], bool]:
        checked_first(first)
        query = scopes_with(info.context.caller, self.row.id, kind)
        if after is not None:
            query = query.where(Limit.scope_id < read_cursor(after))
        query = query.order_by(Limit.scope_id.desc()).limit(first + 1)
        async with info.context.backend.database.read() as session:
            rows = (await session.execute(query)).all()
            scopes = [Scope(row.scope_kind, row.scope_id) for row in rows[:first]]
            pairs = await pairs_of(session, self.row.id, scopes, kind)
        return pairs, len(rows) > first


def organization_of(row: models.Organization) -> Organization:
    """Show an organization."""
    return Organization(
        id=global_id(NodeKind.ORGANIZATION, row.id, row.id),
        slug=row.slug,
        name=row.name,
        currency=row.currency,
        timezone=row.time_zone,
        created_at=row.created_at,
        row=row,
    )


async def _page(
    info: Info,
    query: Select[R],
    column: InstrumentedAttribute[UUID],
    make: Callable[[R], T],
    first: int,
    after: str | None,
) -> Connection[T]:
    async with info.context.backend.database.read() as session:
        rows, has_next = await page_by_id(session, query, column, first=first, after=after)
    return connection_of(rows, make, lambda row: row.id, has_next=has_next, after=after)
