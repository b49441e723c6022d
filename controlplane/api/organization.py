"""An organization in the API, with the lists of everything in it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Annotated, Any, TypeVar
from uuid import UUID

import strawberry
from sqlalchemy import Select
from sqlalchemy.orm import InstrumentedAttribute

from controlplane.api.connections import (
    FIRST_DEFAULT,
    After,
    Connection,
    First,
    checked_first,
    connect,
    connection_of,
    cursor_of,
    page_by_id,
    read_cursor,
)
from controlplane.api.fields import resolved
from controlplane.api.nodes import BREAKER_NODES, Node, NodeKind, global_id
from controlplane.api.request import Info
from controlplane.api.scopes import ScopeInput, ScopeInside, sees_scope
from controlplane.authz import Action, Role, Target, may
from controlplane.breakers.graphql import Breaker, breaker_of, load_breaker
from controlplane.exchange.graphql import ExchangeRate, load_exchange_rate
from controlplane.inputs import checked_text
from controlplane.keys.graphql import KeyFilterInput, KeyOrder, VirtualKey, page_of_keys
from controlplane.keys.queries import KeyFilter
from controlplane.ledger.graphql import (
    BreakerEvent,
    ThresholdCrossing,
    breaker_events_of,
    crossings_of,
)
from controlplane.limits.graphql import (
    Budget,
    BudgetFilterInput,
    ConcurrencyLimit,
    RateLimit,
    budget_of,
    concurrency_limit_of,
    rate_limit_of,
)
from controlplane.limits.models import Limit, LimitKind, Period, Resource, ScopeKind
from controlplane.limits.queries import (
    LimitPair,
    live_limits,
    pairs_named,
    pairs_of,
    rates_in_force,
    scopes_with,
    visible_limits,
)
from controlplane.limits.subjects import Scope
from controlplane.limits.windows import Calendar, slot_of
from controlplane.plans.graphql import Plan, load_plan
from controlplane.policies.graphql import Rule, load_rule, rule_of
from controlplane.policies.models import Rule as RuleRow
from controlplane.policies.queries import visible_rules
from controlplane.pools.graphql import Pool, pool_of
from controlplane.pools.models import Pool as PoolRow
from controlplane.pools.queries import visible_pools
from controlplane.scope import not_found
from controlplane.tenancy import models
from controlplane.tenancy.graphql import (
    CostCenter,
    Member,
    Team,
    cost_center_of,
    member_of,
    team_of,
)
from controlplane.tenancy.queries import (
    members_matching,
    visible_cost_centers,
    visible_members,
    visible_teams,
)
from controlplane.tenant_budgets.graphql import TenantBudget, load_tenant_budget
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
from controlplane.wallets.graphql import Wallet, load_wallet

QUERY_LENGTH_MAX = 254

R = TypeVar("R", bound=Any)
T = TypeVar("T")

# Arguments of what is asked of an organization.
Slug = Annotated[
    str,
    strawberry.argument(
        description="As in the field `slug`: lower-case letters, digits and inner hyphens."
    ),
]
OfRole = Annotated[
    Role | None, strawberry.argument(description="Only those who are this; null: any.")
]
WithText = Annotated[
    str | None,
    strawberry.argument(
        description="Text in the address or name, in upper or lower case, 1 to "
        f"{QUERY_LENGTH_MAX} characters; null: any."
    ),
]
IncludeArchived = Annotated[
    bool, strawberry.argument(description="Whether to show those with `archivedAt`, too.")
]
OfKeys = Annotated[
    KeyFilterInput | None, strawberry.argument(description="Which keys to show; null: all.")
]
ByOrder = Annotated[
    KeyOrder,
    strawberry.argument(description="Which come first; keep it from page to page with `after`."),
]
OfBudgets = Annotated[
    BudgetFilterInput | None, strawberry.argument(description="Which budgets to show; null: all.")
]
OverPeriod = Annotated[
    Period, strawberry.argument(description="Which of its budgets: a scope has one for each.")
]


@strawberry.type(description="A tenant: who spends, within what limits, and what was asked.")
class Organization(Node):
    """A tenant. Lists hold what the caller may see, newest first."""

    slug: str = strawberry.field(description="Name for addresses.")
    name: str = strawberry.field(description="Name for people.")
    currency: str = strawberry.field(description="Currency of all its money, ISO 4217.")
    timezone: str = strawberry.field(description="IANA time zone of its calendar.")
    created_at: datetime = strawberry.field(description="When it was created.")
    version: int = strawberry.field(description="Counts changes; see `expectedVersion`.")
    row: strawberry.Private[models.Organization]

    @resolved("Its prepaid balance; null when it has none that you may see.")
    async def wallet(self, info: Info) -> Wallet | None:
        """Load the wallet."""
        return await load_wallet(info, self.row.id)

    @resolved("Its tenant budget; null when it has none that you may see.")
    async def tenant_budget(self, info: Info) -> TenantBudget | None:
        """Load the tenant budget."""
        return await load_tenant_budget(info, self.row.id)

    @resolved("The plan it is on; null when it is on none that you may see.")
    async def plan(self, info: Info) -> Plan | None:
        """Load the plan."""
        return await load_plan(info, self.row.plan_id) if self._shows_billing(info) else None

    @resolved(
        "The rate by which its requests are charged now; null when it has the currency of prices, "
        "when its currency has no rate, so that it can spend nothing, and when you may not see it."
    )
    async def exchange_rate(self, info: Info) -> ExchangeRate | None:
        """Load the exchange rate."""
        if not self._shows_billing(info):
            return None
        return await load_exchange_rate(info, self.row.currency)

    @resolved("Its teams.")
    async def teams(
        self, info: Info, first: First = FIRST_DEFAULT, after: After = None
    ) -> Connection[Team]:
        """List teams."""
        query = visible_teams(info.context.caller, self.row.id)
        return await _page(info, query, models.Team.id, team_of, first, after)

    @resolved("A team by its slug; null when you may not see it.")
    async def team(self, info: Info, slug: Slug) -> Team | None:
        """Find a team."""
        query = visible_teams(info.context.caller, self.row.id).where(models.Team.slug == slug)
        async with info.context.backend.database.read() as session:
            row = await session.scalar(query)
        return None if row is None else team_of(row)

    @resolved("Its members; `query` is looked for in addresses and names, in any case.")
    async def members(
        self,
        info: Info,
        first: First = FIRST_DEFAULT,
        after: After = None,
        role: OfRole = None,
        query: WithText = None,
    ) -> Connection[Member]:
        """List members."""
        text = None if query is None else checked_text(query, "query", QUERY_LENGTH_MAX)
        found = visible_members(info.context.caller, self.row.id)
        found = found.where(members_matching(role, text))
        return await _page(info, found, models.Member.id, member_of, first, after)

    @resolved("Its cost centers; archived ones only when asked for.")
    async def cost_centers(
        self,
        info: Info,
        first: First = FIRST_DEFAULT,
        after: After = None,
        include_archived: IncludeArchived = False,  # noqa: FBT002 - an argument of the API
    ) -> Connection[CostCenter]:
        """List cost centers."""
        query = visible_cost_centers(info.context.caller, self.row.id)
        if not include_archived:
            query = query.where(models.CostCenter.archived_at.is_(None))
        return await _page(info, query, models.CostCenter.id, cost_center_of, first, after)

    @resolved("Its keys.")
    async def keys(
        self,
        info: Info,
        first: First = FIRST_DEFAULT,
        after: After = None,
        filter: OfKeys = None,  # noqa: A002
        order_by: ByOrder = KeyOrder.CREATED_DESC,
    ) -> Connection[VirtualKey]:
        """List keys."""
        wanted = KeyFilter() if filter is None else filter.as_filter(self.id)
        return await page_of_keys(info, self.row.id, wanted, order_by, first, after)

    @resolved("Its budgets, and those of its teams, members and keys.")
    async def budgets(
        self,
        info: Info,
        first: First = FIRST_DEFAULT,
        after: After = None,
        filter: OfBudgets = None,  # noqa: A002
    ) -> Connection[Budget]:
        """List budgets."""
        query = live_limits(self.row.id).where(
            Limit.kind == LimitKind.BUDGET, visible_limits(info.context.caller, self.row.id)
        )
        if filter is not None:
            query = query.where(filter.condition())
        return await _page(info, query, Limit.id, budget_of, first, after)

    @resolved(
        "The budget of a scope in it for all its requests over a period; null: none you may see."
    )
    async def budget(self, info: Info, scope: ScopeInside, period: OverPeriod) -> Budget | None:
        """Find a budget."""
        about = await self._seen(info, scope)
        if about is None:
            return None
        rows = await info.context.loaders.budgets.load((self.row.id, about))
        slot = slot_of(None, Resource.SPEND, Calendar(period, self.timezone))
        return next((budget_of(row) for row in rows if row.slot == slot), None)

    @resolved(
        "The breaker of the organization, a team or member in it; null when you may not see it."
    )
    async def breaker(self, info: Info, scope: ScopeInside) -> Breaker | None:
        """Find a breaker."""
        about = await self._seen(info, scope)
        if about is None or about.kind not in BREAKER_NODES:
            return None
        return await load_breaker(info, self.row.id, about)

    @resolved("The rule of a scope in it; null when there is none you may see.")
    async def rule(self, info: Info, scope: ScopeInside) -> Rule | None:
        """Find a rule."""
        about = await self._seen(info, scope)
        return None if about is None else await load_rule(info, self.row.id, about)

    @resolved("Breakers with thresholds of their own.")
    async def breakers(
        self, info: Info, first: First = FIRST_DEFAULT, after: After = None
    ) -> Connection[Breaker]:
        """List breakers."""
        pairs, has_next = await self._pairs(info, LimitKind.BREAKER, first, after)
        items = [(cursor_of(pair.scope.id), breaker_of(self.row.id, pair)) for pair in pairs]
        return connect(items, has_next=has_next, has_previous=after is not None)

    @resolved("Percentages of budgets that were reached, newest first.")
    async def threshold_crossings(
        self, info: Info, first: First = FIRST_DEFAULT, after: After = None
    ) -> Connection[ThresholdCrossing]:
        """List crossings."""
        return await crossings_of(info, self.row.id, first, after)

    @resolved("Openings and closings of breakers, newest first.")
    async def breaker_events(
        self, info: Info, first: First = FIRST_DEFAULT, after: After = None
    ) -> Connection[BreakerEvent]:
        """List breaker events."""
        return await breaker_events_of(info, self.row.id, first, after)

    @resolved("Rates of whoever has any.")
    async def rate_limits(
        self, info: Info, first: First = FIRST_DEFAULT, after: After = None
    ) -> Connection[RateLimit]:
        """List rate limits."""
        checked_first(first)
        query = rates_in_force(info.context.caller, self.row.id)
        if after is not None:
            query = query.where(Limit.pair_id < read_cursor(after))
        query = query.order_by(Limit.pair_id.desc()).limit(first + 1)
        async with info.context.backend.database.read() as session:
            names = [each for each in await session.scalars(query) if each is not None]
            pairs = await pairs_named(session, self.row.id, names[:first])
        items = [
            (cursor_of(each), rate_limit_of(self.row.id, pairs[each])) for each in names[:first]
        ]
        return connect(items, has_next=len(names) > first, has_previous=after is not None)

    @resolved("How many requests may be under way at once, of whoever has such a limit.")
    async def concurrency_limits(
        self, info: Info, first: First = FIRST_DEFAULT, after: After = None
    ) -> Connection[ConcurrencyLimit]:
        """List limits of concurrency."""
        query = live_limits(self.row.id).where(
            Limit.kind == LimitKind.CONCURRENCY, visible_limits(info.context.caller, self.row.id)
        )
        return await _page(info, query, Limit.id, concurrency_limit_of, first, after)

    @resolved("Its pools; archived ones only when asked for.")
    async def pools(
        self,
        info: Info,
        first: First = FIRST_DEFAULT,
        after: After = None,
        include_archived: IncludeArchived = False,  # noqa: FBT002 - an argument of the API
    ) -> Connection[Pool]:
        """List pools."""
        query = visible_pools(info.context.caller, self.row.id)
        if not include_archived:
            query = query.where(PoolRow.archived_at.is_(None))
        return await _page(info, query, PoolRow.id, pool_of, first, after)

    @resolved("What requests may be: its rule, and those of its teams and keys.")
    async def rules(
        self, info: Info, first: First = FIRST_DEFAULT, after: After = None
    ) -> Connection[Rule]:
        """List rules."""
        query = visible_rules(info.context.caller, self.row.id)
        return await _page(info, query, RuleRow.id, rule_of, first, after)

    @resolved("Requests on record, allowed, refused and failed.")
    async def requests(
        self,
        info: Info,
        first: First = FIRST_DEFAULT,
        after: After = None,
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

    def _shows_billing(self, info: Info) -> bool:
        return may(info.context.caller, Action.BILLING_READ, Target(self.row.id))

    async def _seen(self, info: Info, scope: ScopeInput) -> Scope | None:
        """Read a scope of this organization that the caller may see."""
        organization_id, about = scope.located()
        is_seen = organization_id == self.row.id and await sees_scope(info, self.row.id, about)
        return about if is_seen else None

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
        version=row.version,
        row=row,
    )


async def load_organization(info: Info, organization_id: UUID) -> Organization:
    """Load an organization by a reference to it."""
    row = await info.context.loaders.organizations.load(organization_id)
    if row is None:
        raise not_found("organization")
    return organization_of(row)


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
