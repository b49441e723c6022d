"""Budgets, rate limits and breakers in the API."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from uuid import UUID

import strawberry

from controlplane.api.faults import UserError, attempt
from controlplane.api.fields import mutation, resolved
from controlplane.api.nodes import (
    BREAKER_NODES,
    GlobalId,
    Node,
    NodeKind,
    expect,
    global_id,
    scope_id,
)
from controlplane.api.request import Info
from controlplane.api.scalars import BigInt, Money
from controlplane.clock import instant
from controlplane.context import Work
from controlplane.errors import InvalidInput
from controlplane.limits import models, service
from controlplane.limits.models import Mode, Period, ScopeKind
from controlplane.limits.nesting import BREAKER_WINDOWS_S, breaker_id
from controlplane.limits.queries import LimitPair
from controlplane.limits.state import LimitState
from controlplane.limits.subjects import Scope

strawberry.enum(ScopeKind, name="ScopeKind", description="Whose use is counted.")
strawberry.enum(
    Period, name="BudgetPeriod", description="A calendar period; weeks start on Monday."
)


class Enforcement(StrEnum):
    """Whether a budget refuses."""

    HARD = "hard"
    SOFT = "soft"


strawberry.enum(
    Enforcement, name="Enforcement", description="Hard: never passed. Soft: never refuses."
)


@strawberry.type(description="Whose use a limit counts.")
class SpendScope:
    """Whose use a limit counts."""

    kind: ScopeKind = strawberry.field(description="What it is.")
    id: strawberry.ID = strawberry.field(description="Its global id, for `node`.")


@strawberry.input(one_of=True, description="Exactly one.")
class ScopeInput:
    """Exactly one of an organization, a team, a member, a key."""

    organization_id: strawberry.ID | None = strawberry.field(
        default=strawberry.UNSET, description="All of an organization."
    )
    team_id: strawberry.ID | None = strawberry.field(
        default=strawberry.UNSET, description="A team."
    )
    member_id: strawberry.ID | None = strawberry.field(
        default=strawberry.UNSET, description="A member."
    )
    key_id: strawberry.ID | None = strawberry.field(default=strawberry.UNSET, description="A key.")

    def located(self) -> tuple[UUID, Scope]:
        """Read the organization and the scope in it.

        Raises `NotFound`, and `InvalidInput` when none is given.
        """
        given = (
            (self.organization_id, NodeKind.ORGANIZATION, ScopeKind.ORGANIZATION),
            (self.team_id, NodeKind.TEAM, ScopeKind.TEAM),
            (self.member_id, NodeKind.MEMBER, ScopeKind.MEMBER),
            (self.key_id, NodeKind.KEY, ScopeKind.KEY),
        )
        for text, node_kind, kind in given:
            if isinstance(text, str):
                found = expect(text, node_kind, kind.value)
                return found.organization_id, Scope(kind, found.id)
        raise InvalidInput("Name a scope.", field=("scope",))


@strawberry.type(description="What a budget has counted in its current period.")
class BudgetState:
    """What a budget has counted in its current period."""

    settled: Money = strawberry.field(description="Booked by finished requests.")
    held: Money = strawberry.field(description="Held by requests under way.")
    remaining: Money = strawberry.field(
        description="Limit less settled and held; negative after an overrun."
    )
    resets_at: datetime | None = strawberry.field(description="When the next period starts.")
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

    @resolved("Live counters; null while nothing enforces it here.")
    def state(self, info: Info) -> BudgetState | None:
        """Read the live counters."""
        state = info.context.limit_state(self.row.organization_id, self.row.id)
        return None if state is None else _budget_state(self.row.cap, state)


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


@strawberry.type(description="Stops a scope that spends too fast, and lets go by itself.")
class Breaker(Node):
    """Stops a scope that spends too fast."""

    scope: SpendScope = strawberry.field(description="Whom it stops.")
    per_minute: Money | None = strawberry.field(
        description="Spending in any 60 seconds at which it opens; null: inherited."
    )
    per_hour: Money | None = strawberry.field(
        description="Spending in any 3600 seconds at which it opens; null: inherited."
    )
    version: int = strawberry.field(description="Counts changes; see `expectedVersion`.")
    organization_uuid: strawberry.Private[UUID]
    about: strawberry.Private[Scope]

    @resolved("Whether it refuses now; null while nothing enforces it here.")
    def is_open(self, info: Info) -> bool | None:
        """Tell whether either window is at its threshold."""
        states = self._states(info)
        return any(state.is_open for state in states) if states else None

    @resolved("When it closes if nothing more is spent; null when closed.")
    def closes_at(self, info: Info) -> datetime | None:
        """Tell when both windows are below their thresholds."""
        ends = [each.frees_at_ns for each in self._states(info) if each.is_open]
        known = [end_ns for end_ns in ends if end_ns is not None]
        return instant(max(known)) if known else None

    def _states(self, info: Info) -> list[LimitState]:
        names = (breaker_id(self.about.kind, self.about.id, each) for each in BREAKER_WINDOWS_S)
        found = (info.context.limit_state(self.organization_uuid, name) for name in names)
        return [state for state in found if state is not None]


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


def breaker_of(organization_id: UUID, pair: LimitPair) -> Breaker:
    """Show the thresholds a scope has set for itself."""
    minute_nanos, hour_nanos = pair.caps
    return Breaker(
        id=global_id(BREAKER_NODES[pair.scope.kind], organization_id, pair.scope.id),
        scope=scope_of(organization_id, pair.scope),
        per_minute=None if minute_nanos is None else Money(minute_nanos),
        per_hour=None if hour_nanos is None else Money(hour_nanos),
        version=pair.version,
        organization_uuid=organization_id,
        about=pair.scope,
    )


def scope_of(organization_id: UUID, scope: Scope) -> SpendScope:
    """Show whose use is counted."""
    return SpendScope(kind=scope.kind, id=scope_id(organization_id, scope))


def _budget_state(cap_nanos: int, state: LimitState) -> BudgetState:
    return BudgetState(
        settled=Money(state.settled),
        held=Money(state.held),
        remaining=Money(cap_nanos - state.settled - state.held),
        resets_at=None if state.resets_at_ns is None else instant(state.resets_at_ns),
        as_of=instant(state.as_of_ns),
    )


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


@strawberry.input(description="Thresholds of a breaker; both are set, null inherits.")
class BreakerSetInput:
    """Thresholds of a breaker."""

    scope: ScopeInput = strawberry.field(
        description="Whom it stops: an organization, a team or a member."
    )
    per_minute: Money | None = strawberry.field(
        default=None, description="Spending in any 60 seconds at which it opens."
    )
    per_hour: Money | None = strawberry.field(
        default=None, description="Spending in any 3600 seconds at which it opens."
    )
    expected_version: int | None = strawberry.field(
        default=None, description="The version you have seen; null where none was ever set."
    )


@strawberry.type(description="The breaker, or why nothing was changed.")
class BreakerPayload:
    """The breaker, or why nothing was changed."""

    breaker: Breaker | None = strawberry.field(description="The breaker; null when errors.")
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

    @mutation("Set a scope's own breaker thresholds.")
    async def breaker_set(self, info: Info, input: BreakerSetInput) -> BreakerPayload:  # noqa: A002
        """Set a scope's own breaker thresholds."""

        async def change(work: Work) -> Located:
            organization_id, scope = input.scope.located()
            pair = await service.set_breaker(
                work,
                organization_id,
                scope,
                minute_nanos=input.per_minute,
                hour_nanos=input.per_hour,
                expected_version=input.expected_version,
            )
            return organization_id, pair

        done, errors = await attempt(info, change)
        return BreakerPayload(breaker=None if done is None else breaker_of(*done), errors=errors)
