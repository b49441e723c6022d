"""Setting budgets, rates and limits of concurrency in the API."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime
from uuid import UUID

import strawberry

from controlplane.api.faults import UserError, attempt
from controlplane.api.fields import mutation
from controlplane.api.given import given
from controlplane.api.nodes import NodeKind, expect
from controlplane.api.request import Info
from controlplane.api.scalars import BigInt, Money
from controlplane.api.scopes import ScopeInput
from controlplane.context import Work
from controlplane.errors import InvalidInput
from controlplane.limits import models, service
from controlplane.limits.asked import WindowAsked
from controlplane.limits.graphql import (
    Budget,
    ConcurrencyLimit,
    Enforcement,
    RateLimit,
    budget_of,
    concurrency_limit_of,
    rate_limit_of,
)
from controlplane.limits.models import Hold, Mode, Period
from controlplane.limits.moves import Move, Moved, move_budget
from controlplane.limits.queries import LimitPair
from controlplane.limits.service import BudgetChanges, WhereAsked
from controlplane.limits.steps import Step, StepAction
from controlplane.limits.subjects import Scope
from controlplane.scope import not_found

Located = tuple[UUID, LimitPair]


@strawberry.input(description="Which requests to count, 1 to 100 names each; null allows all.")
class LimitWhereInput:
    """Which requests to count."""

    models: list[str] | None = strawberry.field(
        default=None, description="Served by one of these models, as callers name them."
    )
    tiers: list[str] | None = strawberry.field(
        default=None, description="Served by a model of one of these tiers."
    )
    providers: list[str] | None = strawberry.field(
        default=None, description="Served by one of these providers."
    )
    features: list[str] | None = strawberry.field(
        default=None, description="Made for one of these features."
    )

    def asked(self) -> WhereAsked:
        """Read the lists."""
        return {
            "models": self.models,
            "tiers": self.tiers,
            "providers": self.providers,
            "features": self.features,
        }


@strawberry.input(description="Periods of some days each.")
class EveryDaysInput:
    """Periods of some days each."""

    days: int = strawberry.field(description="So many days, 1 to 366.")
    anchor: date | None = strawberry.field(
        default=None,
        description="The day from whose midnight on they are counted, both ways; left out: as it "
        "was, at first the day a key was made, and today for other scopes.",
    )


@strawberry.input(description="All time.")
class LifetimeInput:
    """All time."""

    starts_at: datetime | None = strawberry.field(
        default=None, description="From when on; left out: as it was, at first from ever."
    )


@strawberry.input(description="A step of a budget.")
class BudgetStepInput:
    """A step of a budget."""

    percent: int = strawberry.field(
        description="1 to 100, in order; to queue and to refuse 100 alone."
    )
    action: StepAction = strawberry.field(description="What happens.")
    model: str | None = strawberry.field(
        default=None, description="The model that answers; of a downgrade, and only there."
    )
    timeout_seconds: int | None = strawberry.field(
        default=None, description="How long to wait, 1 to 300; of a queue, and only there."
    )
    code: str | None = strawberry.field(
        default=None, description="The code of a refusal: lower-case letters, digits, underscores."
    )
    status: int | None = strawberry.field(
        default=None, description="The HTTP status of a refusal: 402, 403 or 429."
    )

    def step(self) -> Step:
        """Read the step."""
        return Step(
            self.percent, self.action, self.model, self.timeout_seconds, self.code, self.status
        )


@strawberry.input(
    description="A budget to create or change: a scope has one for each window and `where`."
)
class BudgetUpsertInput:
    """A budget to create or change."""

    limit: Money = strawberry.field(description="How much may be spent in a period.")
    scope: ScopeInput | None = strawberry.field(
        default=None, description="Whose spending it counts; left out only with `budgetId`."
    )
    budget_id: strawberry.ID | None = strawberry.field(
        default=None,
        description="The budget to change, also if its window shall be another; left out: the one "
        "of this scope, window and `where`.",
    )
    period: Period | None = strawberry.field(
        default=None,
        description="A calendar period; or `everyDays`, or `lifetime`. With `budgetId`: as it was "
        "if all three are left out, else from the end of its period on.",
    )
    every_days: EveryDaysInput | None = strawberry.field(
        default=None, description="Periods of some days each."
    )
    lifetime: LifetimeInput | None = strawberry.field(default=None, description="All time.")
    timezone: str | None = strawberry.field(
        default=None,
        description="Left out: as it was, at first the organization's. Another one counts from "
        "the end of the period on.",
    )
    where: LimitWhereInput | None = strawberry.field(
        default=None, description="Which requests it counts; left out: all of the scope."
    )
    enforcement: Enforcement = strawberry.field(
        default=Enforcement.HARD, description="Whether it refuses."
    )
    hold: Hold | None = strawberry.field(
        default=None,
        description="How much of an open request it holds; left out: as it was, at first what is "
        "expected.",
    )
    steps: list[BudgetStepInput] | None = strawberry.field(
        default=None,
        description="What happens as it fills up, at most 16; left out: as it was, at first "
        "nothing but that a hard one refuses.",
    )
    cooldown_seconds: int | None = strawberry.field(
        default=strawberry.UNSET,
        description="How often a soft one tells that it is passed, at most; left out: as it was; "
        "null: once a period.",
    )
    expected_version: int | None = strawberry.field(
        default=None, description="The version you have seen; null creates."
    )

    def located(self) -> tuple[UUID, Scope | None, UUID | None]:
        """Read the organization, the scope in it, and the budget, where they are given.

        Raises `NotFound`, `InvalidInput`.
        """
        named = None
        if self.budget_id is not None:
            named = expect(self.budget_id, NodeKind.BUDGET, "budget")
        if self.scope is None:
            if named is None:
                raise InvalidInput("Name a scope.", field=("scope",))
            return named.organization_id, None, named.id
        organization_id, scope = self.scope.located()
        if named is not None and named.organization_id != organization_id:
            raise not_found("budget")
        return organization_id, scope, None if named is None else named.id

    def window(self) -> WindowAsked:
        """Read the window."""
        days, lifetime = self.every_days, self.lifetime
        return WindowAsked(
            period=self.period,
            days=None if days is None else days.days,
            anchor=None if days is None else days.anchor,
            is_lifetime=lifetime is not None,
            starts_at=None if lifetime is None else lifetime.starts_at,
            time_zone=self.timezone,
        )

    def changes(self) -> BudgetChanges:
        """Read what may be left out."""
        found = BudgetChanges()
        if self.hold is not None:
            found["hold"] = self.hold
        if self.steps is not None:
            found["steps"] = [each.step() for each in self.steps]
        if given(self.cooldown_seconds):
            found["cooldown_s"] = self.cooldown_seconds
        return found


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


@strawberry.input(description="Budget to move between members and keys of one team.")
class BudgetMoveInput:
    """Budget to move between members and keys of one team."""

    from_budget_id: strawberry.ID = strawberry.field(description="The budget to take from.")
    to_budget_id: strawberry.ID = strawberry.field(
        description="The budget to add to, over the same window."
    )
    amount: Money = strawberry.field(description="How much to move, above zero.")
    expected_versions: list[int] = strawberry.field(
        description="The two versions you have seen: that of the first budget, then the other's."
    )
    idempotency_key: str = strawberry.field(
        description="A retry with the same value moves nothing again."
    )


@strawberry.type(description="Both budgets, or why nothing was changed.")
class BudgetMovePayload:
    """Both budgets, or why nothing was changed."""

    from_budget: Budget | None = strawberry.field(
        description="The budget that gave; null when errors."
    )
    to_budget: Budget | None = strawberry.field(
        description="The budget that took; null when errors."
    )
    replayed: bool = strawberry.field(
        description="Whether an earlier call with this idempotency key did it."
    )
    errors: list[UserError] = strawberry.field(description="What you can mend.")


@strawberry.input(description="The rates of a scope; both are set, null lifts one.")
class RateLimitSetInput:
    """The rates of a scope."""

    scope: ScopeInput = strawberry.field(description="Whose requests they count.")
    where: LimitWhereInput | None = strawberry.field(
        default=None, description="Which of its requests; left out: all."
    )
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


@strawberry.input(description="How many requests of a scope may be under way at once.")
class ConcurrencyLimitSetInput:
    """How many requests of a scope may be under way at once."""

    scope: ScopeInput = strawberry.field(description="Whose requests it counts.")
    requests: int = strawberry.field(description="Most requests at once; 0 stops the scope.")
    where: LimitWhereInput | None = strawberry.field(
        default=None, description="Which of its requests; left out: all."
    )
    expected_version: int | None = strawberry.field(
        default=None, description="The version you have seen; null creates."
    )


@strawberry.input(description="A limit of concurrency to lift.")
class ConcurrencyLimitArchiveInput:
    """A limit of concurrency to lift."""

    concurrency_limit_id: strawberry.ID = strawberry.field(description="The limit.")
    expected_version: int = strawberry.field(description="The version you have seen.")


@strawberry.type(description="The limit, or why nothing was changed.")
class ConcurrencyLimitPayload:
    """The limit, or why nothing was changed."""

    concurrency_limit: ConcurrencyLimit | None = strawberry.field(
        description="The limit; null when errors."
    )
    errors: list[UserError] = strawberry.field(description="What you can mend.")


@strawberry.type
class LimitMutation:
    """Changes to limits."""

    @mutation("Create or change a budget; what is spent stays spent.")
    async def budget_upsert(self, info: Info, input: BudgetUpsertInput) -> BudgetPayload:  # noqa: A002
        """Create or change a budget."""

        async def change(work: Work) -> models.Limit:
            organization_id, scope, budget_id = input.located()
            return await service.upsert_budget(
                work,
                organization_id,
                scope,
                window=input.window(),
                where=None if input.where is None else input.where.asked(),
                cap_nanos=input.limit,
                mode=Mode(input.enforcement.value),
                changes=input.changes(),
                budget_id=budget_id,
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

    @mutation("Move budget between members and keys of a team. For admins, team admins in it.")
    async def budget_move(self, info: Info, input: BudgetMoveInput) -> BudgetMovePayload:  # noqa: A002
        """Move budget between members and keys of a team."""

        async def change(work: Work) -> Moved:
            place, move = _move(input)
            return await move_budget(work, place, move, idempotency_key=input.idempotency_key)

        done, errors = await attempt(info, change)
        return BudgetMovePayload(
            from_budget=None if done is None else budget_of(done.giver),
            to_budget=None if done is None else budget_of(done.taker),
            replayed=done is not None and done.replayed,
            errors=errors,
        )

    @mutation("Set the rates of a scope.")
    async def rate_limit_set(self, info: Info, input: RateLimitSetInput) -> RateLimitPayload:  # noqa: A002
        """Set the rates of a scope."""

        async def change(work: Work) -> Located:
            organization_id, scope = input.scope.located()
            pair = await service.set_rate_limit(
                work,
                organization_id,
                scope,
                requests_per_minute=input.requests_per_minute,
                tokens_per_minute=input.tokens_per_minute,
                where=None if input.where is None else input.where.asked(),
                expected_version=input.expected_version,
            )
            return organization_id, pair

        done, errors = await attempt(info, change)
        return RateLimitPayload(
            rate_limit=None if done is None else rate_limit_of(*done), errors=errors
        )

    @mutation("Set how many requests of a scope may be under way at once.")
    async def concurrency_limit_set(
        self,
        info: Info,
        input: ConcurrencyLimitSetInput,  # noqa: A002
    ) -> ConcurrencyLimitPayload:
        """Set how many requests of a scope may be under way at once."""

        async def change(work: Work) -> models.Limit:
            organization_id, scope = input.scope.located()
            return await service.set_concurrency_limit(
                work,
                organization_id,
                scope,
                requests_max=input.requests,
                where=None if input.where is None else input.where.asked(),
                expected_version=input.expected_version,
            )

        return _concurrency(*await attempt(info, change))

    @mutation("Let any number of requests of a scope be under way again.")
    async def concurrency_limit_archive(
        self,
        info: Info,
        input: ConcurrencyLimitArchiveInput,  # noqa: A002
    ) -> ConcurrencyLimitPayload:
        """Lift a limit of concurrency."""

        async def change(work: Work) -> models.Limit:
            kind = NodeKind.CONCURRENCY_LIMIT
            found = expect(input.concurrency_limit_id, kind, "concurrency limit")
            return await service.archive_concurrency_limit(
                work, found.organization_id, found.id, expected_version=input.expected_version
            )

        return _concurrency(*await attempt(info, change))


def _concurrency(row: models.Limit | None, errors: list[UserError]) -> ConcurrencyLimitPayload:
    return ConcurrencyLimitPayload(
        concurrency_limit=None if row is None else concurrency_limit_of(row), errors=errors
    )


def _move(asked: BudgetMoveInput) -> tuple[UUID, Move]:
    giver = expect(asked.from_budget_id, NodeKind.BUDGET, "budget")
    taker = expect(asked.to_budget_id, NodeKind.BUDGET, "budget")
    if taker.organization_id != giver.organization_id:
        raise not_found("budget")
    versions: Sequence[int] = asked.expected_versions
    if len(versions) != 2:  # noqa: PLR2004 - one for each budget
        raise InvalidInput("Give both versions.", field=("expectedVersions",))
    move = Move(giver.id, taker.id, asked.amount, versions[0], versions[1])
    return giver.organization_id, move
