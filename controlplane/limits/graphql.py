"""Budgets, rate limits and breakers in the API."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from uuid import UUID

import strawberry
from sqlalchemy import ColumnElement, and_, true

from controlplane.api.counters import CounterSource, state_of
from controlplane.api.faults import UserError, attempt
from controlplane.api.fields import enumeration, mutation, resolved
from controlplane.api.nodes import GlobalId, Node, NodeKind, expect, global_id
from controlplane.api.request import Info
from controlplane.api.scalars import BigInt, Money
from controlplane.api.scopes import ScopeInput, SpendScope, scope_of
from controlplane.clock import instant
from controlplane.context import Work
from controlplane.limits import models, service
from controlplane.limits.models import LimitKind, Mode, Period, ScopeKind
from controlplane.limits.queries import LimitPair
from controlplane.limits.settled import counted
from controlplane.limits.state import LimitState
from controlplane.limits.subjects import Scope

SHARE_PARTS = 10_000

enumeration(
    Period,
    "BudgetPeriod",
    "A calendar period in the budget's time zone.",
    {
        Period.DAY: "A day from midnight on.",
        Period.WEEK: "A week from Monday on.",
        Period.MONTH: "A month from its first day on.",
    },
)


class Enforcement(StrEnum):
    """Whether a budget refuses."""

    HARD = "hard"
    SOFT = "soft"


enumeration(
    Enforcement,
    "Enforcement",
    "Whether a budget refuses.",
    {
        Enforcement.HARD: "A request that might pass it is refused.",
        Enforcement.SOFT: "It counts and never refuses.",
    },
)


@strawberry.type(description="What a budget has counted in its current period.")
class BudgetState:
    """What a budget has counted in its current period."""

    settled: Money = strawberry.field(description="Booked by finished requests.")
    held: Money = strawberry.field(
        description="Held by requests under way; 0.00 where the source is the ledger."
    )
    remaining: Money = strawberry.field(
        description="Limit less settled and held; negative after an overrun."
    )
    resets_at: datetime | None = strawberry.field(description="When the next period starts.")
    utilization: float = strawberry.field(
        description="Settled and held as a share of the limit: 0.5 is half, over 1 an overrun; "
        "cut to four decimals, and 1 where the limit is zero."
    )
    source: CounterSource = strawberry.field(description="Where the figures are from.")
    as_of: datetime = strawberry.field(description="The moment these figures are of.")


@strawberry.type(description="How much money a scope may spend in a calendar period.")
class Budget(Node):
    """How much money a scope may spend in a calendar period."""

    scope: SpendScope = strawberry.field(description="Whose spending it counts.")
    period: Period = strawberry.field(description="The calendar period.")
    timezone: str = strawberry.field(description="The time zone whose calendar counts.")
    limit: Money = strawberry.field(description="How much may be spent in a period.")
    enforcement: Enforcement = strawberry.field(description="Whether it refuses.")
    version: int = strawberry.field(description="Counts changes; see `expectedVersion`.")
    row: strawberry.Private[models.Limit]

    @resolved("What it has counted in the current period.")
    async def state(self, info: Info) -> BudgetState:
        """Read the live counters, or the ledger where nothing enforces it here."""
        state, source = await state_of(info, self.row.organization_id, counted(self.row))
        return _budget_state(self.row.cap, state, source)


@strawberry.type(description="What a key may do in any 60 seconds.")
class RateLimit(Node):
    """What a key may do in any 60 seconds."""

    scope: SpendScope = strawberry.field(description="The key.")
    requests_per_minute: BigInt | None = strawberry.field(
        description="Most requests; null: any number."
    )
    tokens_per_minute: BigInt | None = strawberry.field(
        description="Tokens at which it is stopped; null: any number."
    )
    version: int = strawberry.field(description="Counts changes; see `expectedVersion`.")


def budget_of(row: models.Limit) -> Budget:
    """Show a budget."""
    if row.window_period is None or row.window_time_zone is None:
        raise AssertionError(f"budget {row.id} has no calendar window")
    return Budget(
        id=global_id(NodeKind.BUDGET, row.organization_id, row.id),
        scope=scope_of(row.organization_id, Scope(row.scope_kind, row.scope_id)),
        period=row.window_period,
        timezone=row.window_time_zone,
        limit=Money(row.cap),
        enforcement=Enforcement(row.mode.value),
        version=row.version,
        row=row,
    )


def rate_limit_of(organization_id: UUID, pair: LimitPair) -> RateLimit:
    """Show the rates of a key."""
    requests, tokens = pair.caps
    return RateLimit(
        id=global_id(NodeKind.RATE_LIMIT, organization_id, pair.scope.id),
        scope=scope_of(organization_id, pair.scope),
        requests_per_minute=None if requests is None else BigInt(requests),
        tokens_per_minute=None if tokens is None else BigInt(tokens),
        version=pair.version,
    )


async def budgets_of(info: Info, organization_id: UUID, scope: Scope) -> list[Budget]:
    """List the budgets that a scope has itself, the first made first."""
    rows = await info.context.loaders.budgets.load((organization_id, scope))
    return [budget_of(row) for row in rows]


async def rate_limit_of_key(info: Info, organization_id: UUID, key_id: UUID) -> RateLimit | None:
    """Load the rates of a key, if it ever had any."""
    name = (LimitKind.RATE, Scope(ScopeKind.KEY, key_id))
    pair = await info.context.loaders.pairs.load((organization_id, name))
    return rate_limit_of(organization_id, pair) if pair.version else None


def _budget_state(cap_nanos: int, state: LimitState, source: CounterSource) -> BudgetState:
    used = state.settled + state.held
    return BudgetState(
        settled=Money(state.settled),
        held=Money(state.held),
        remaining=Money(cap_nanos - used),
        resets_at=None if state.resets_at_ns is None else instant(state.resets_at_ns),
        utilization=_share(used, cap_nanos),
        source=source,
        as_of=instant(state.as_of_ns),
    )


def _share(used: int, cap: int) -> float:
    """Divide whole numbers, cut to ten thousandths; the one float there is, made last."""
    return 1.0 if cap == 0 else (used * SHARE_PARTS // cap) / SHARE_PARTS


@strawberry.input(description="Which budgets to show; of several values any will do.")
class BudgetFilterInput:
    """Which budgets to show."""

    kinds: list[ScopeKind] | None = strawberry.field(
        default=None, description="Of these kinds of scopes."
    )
    periods: list[Period] | None = strawberry.field(default=None, description="Over these periods.")
    enforcement: Enforcement | None = strawberry.field(
        default=None, description="Hard or soft ones."
    )

    def condition(self) -> ColumnElement[bool]:
        """Write the filter as a condition."""
        found: list[ColumnElement[bool]] = []
        if self.kinds is not None:
            found.append(models.Limit.scope_kind.in_(self.kinds))
        if self.periods is not None:
            found.append(models.Limit.window_period.in_(self.periods))
        if self.enforcement is not None:
            found.append(models.Limit.mode == Mode(self.enforcement.value))
        return and_(true(), *found)


@strawberry.input(description="A budget to create or change: a scope has one for each period.")
class BudgetUpsertInput:
    """A budget to create or change."""

    scope: ScopeInput = strawberry.field(description="Whose spending it counts.")
    period: Period = strawberry.field(description="The calendar period.")
    limit: Money = strawberry.field(description="How much may be spent in a period.")
    enforcement: Enforcement = strawberry.field(
        default=Enforcement.HARD, description="Whether it refuses."
    )
    timezone: str | None = strawberry.field(
        default=None, description="Left out: as it was, at first the organization's."
    )
    expected_version: int | None = strawberry.field(
        default=None, description="The version you have seen; null creates."
    )


@strawberry.input(description="A budget to lift.")
class BudgetArchiveInput:
    """A budget to lift."""

    budget_id: strawberry.ID = strawberry.field(description="The budget.")
    expected_version: int = strawberry.field(description="The version you have seen.")


@strawberry.type(description="The budget, or why nothing was changed.")
class BudgetPayload:
    """The budget, or why nothing was changed."""

    budget: Budget | None = strawberry.field(description="The budget; null when errors.")
    errors: list[UserError] = strawberry.field(description="What you can mend.")


@strawberry.input(description="The rates of a key; both are set, null lifts one.")
class RateLimitSetInput:
    """The rates of a key."""

    key_id: strawberry.ID = strawberry.field(description="The key.")
    requests_per_minute: BigInt | None = strawberry.field(
        default=None, description="Most requests in any 60 seconds."
    )
    tokens_per_minute: BigInt | None = strawberry.field(
        default=None, description="Tokens in any 60 seconds at which it is stopped."
    )
    expected_version: int | None = strawberry.field(
        default=None, description="The version you have seen; null where there never were rates."
    )


@strawberry.type(description="The rates, or why nothing was changed.")
class RateLimitPayload:
    """The rates, or why nothing was changed."""

    rate_limit: RateLimit | None = strawberry.field(description="The rates; null when errors.")
    errors: list[UserError] = strawberry.field(description="What you can mend.")


Located = tuple[UUID, LimitPair]


@strawberry.type
class LimitMutation:
    """Changes to limits."""

    @mutation("Create or change a budget; what is spent stays spent.")
    async def budget_upsert(self, info: Info, input: BudgetUpsertInput) -> BudgetPayload:  # noqa: A002
        """Create or change a budget."""

        async def change(work: Work) -> models.Limit:
            organization_id, scope = input.scope.located()
            return await service.upsert_budget(
                work,
                organization_id,
                scope,
                period=input.period,
                cap_nanos=input.limit,
                mode=Mode(input.enforcement.value),
                time_zone=input.timezone,
                expected_version=input.expected_version,
            )

        row, errors = await attempt(info, change)
        return BudgetPayload(budget=None if row is None else budget_of(row), errors=errors)

    @mutation("Lift a budget.")
    async def budget_archive(self, info: Info, input: BudgetArchiveInput) -> BudgetPayload:  # noqa: A002
        """Lift a budget."""

        async def change(work: Work) -> models.Limit:
            found = expect(input.budget_id, NodeKind.BUDGET, "budget")
            return await service.archive_budget(
                work, found.organization_id, found.id, expected_version=input.expected_version
            )

        row, errors = await attempt(info, change)
        return BudgetPayload(budget=None if row is None else budget_of(row), errors=errors)

    @mutation("Set the rates of a key.")
    async def rate_limit_set(self, info: Info, input: RateLimitSetInput) -> RateLimitPayload:  # noqa: A002
        """Set the rates of a key."""

        async def change(work: Work) -> Located:
            key: GlobalId = expect(input.key_id, NodeKind.KEY, "key")
            pair = await service.set_rate_limit(
                work,
                key.organization_id,
                key.id,
                requests_per_minute=input.requests_per_minute,
                tokens_per_minute=input.tokens_per_minute,
                expected_version=input.expected_version,
            )
            return key.organization_id, pair

        done, errors = await attempt(info, change)
        return RateLimitPayload(
            rate_limit=None if done is None else rate_limit_of(*done), errors=errors
        )
