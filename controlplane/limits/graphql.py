"""Budgets, rates and limits of concurrency in the API."""

from __future__ import annotations

from datetime import date, datetime
from enum import StrEnum
from uuid import UUID

import strawberry
from sqlalchemy import ColumnElement, and_, false, or_, true

from controlplane.api.counters import CounterSource, state_of
from controlplane.api.fields import enumeration, resolved
from controlplane.api.nodes import Node, NodeKind, global_id
from controlplane.api.request import Info
from controlplane.api.scalars import BigInt, Money
from controlplane.api.scopes import SpendScope, scope_of
from controlplane.clock import instant
from controlplane.limits import models
from controlplane.limits.forecast import exhaustion_at_ns
from controlplane.limits.models import Hold, LimitKind, Mode, Period, Resource, ScopeKind
from controlplane.limits.periods import window_at
from controlplane.limits.queries import LimitPair
from controlplane.limits.rows import pair_id_of
from controlplane.limits.settled import CountedLimit, counted
from controlplane.limits.state import LimitState
from controlplane.limits.steps import Step, StepAction, step_of
from controlplane.limits.subjects import Scope, scope_of_row
from controlplane.limits.where import Where, where_form
from controlplane.limits.windows import Calendar, Window, slot_of, window_from

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
    SHADOW = "shadow"


enumeration(
    Enforcement,
    "Enforcement",
    "Whether a budget refuses.",
    {
        Enforcement.HARD: "A request that might pass it is refused.",
        Enforcement.SOFT: "It counts, tells when it is passed, and never refuses.",
        Enforcement.SHADOW: "It only counts.",
    },
)
enumeration(
    Hold,
    "Hold",
    "How much of an open request a budget holds.",
    {
        Hold.EXPECTED: "What such requests cost in all likelihood; a stream that costs more is "
        "extended ahead, or cut.",
        Hold.BOUND: "The most it can cost: no stream is cut for this budget below that.",
    },
)
enumeration(
    StepAction,
    "StepAction",
    "What happens at a step of a budget.",
    {
        StepAction.NOTIFY: "It is told, once in a period.",
        StepAction.DOWNGRADE: "A cheaper model answers, and the caller is told.",
        StepAction.CONFIRM: "The caller must confirm the request.",
        StepAction.QUEUE: "The request waits for room; at 100 percent alone.",
        StepAction.REFUSE: "The request is refused; at 100 percent alone.",
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
    still_held: Money = strawberry.field(
        description="The part of `held` that requests under way have not cost so far: what may "
        "come free again."
    )
    forecast_exhaustion_at: datetime | None = strawberry.field(
        description="When it will be used up if spending goes on as in this period so far; null "
        "when it will not be before the next, and while too little is known."
    )
    source: CounterSource = strawberry.field(description="Where the figures are from.")
    as_of: datetime = strawberry.field(description="The moment these figures are of.")


@strawberry.type(description="A step of a budget: what happens from a percentage of it on.")
class BudgetStep:
    """A step of a budget."""

    percent: int = strawberry.field(
        description="Of what is booked, below 100; 100: when a request does not fit."
    )
    action: StepAction = strawberry.field(description="What happens.")
    model: str | None = strawberry.field(description="The model that answers; of a downgrade.")
    timeout_seconds: int | None = strawberry.field(description="How long to wait; of a queue.")
    code: str | None = strawberry.field(
        description="The code of the refusal; null: the usual one of its scope."
    )
    status: int | None = strawberry.field(
        description="The HTTP status of the refusal; null: the usual one."
    )


@strawberry.type(description="Which requests a limit counts; null lists allow all.")
class LimitWhere:
    """Which requests a limit counts."""

    models: list[str] | None = strawberry.field(description="Served by one of these models.")
    tiers: list[str] | None = strawberry.field(description="Served by a model of these tiers.")
    providers: list[str] | None = strawberry.field(description="Served by one of these.")
    features: list[str] | None = strawberry.field(description="Made for one of these features.")


@strawberry.type(description="Over which time a budget counts.")
class BudgetWindow:
    """Over which time a budget counts."""

    period: Period | None = strawberry.field(description="A calendar period; null: it is none.")
    days: int | None = strawberry.field(description="So many days each; null: it is no such.")
    anchor: date | None = strawberry.field(
        description="The day from whose midnight on the days are counted, both ways."
    )
    starts_at: datetime | None = strawberry.field(
        description="From when on all time counts; null: from ever, or it does not."
    )
    timezone: str | None = strawberry.field(description="Whose calendar counts; null for all time.")


@strawberry.type(description="How much money a scope may spend in a period, or ever.")
class Budget(Node):
    """How much money a scope may spend in a period, or ever."""

    scope: SpendScope = strawberry.field(description="Whose spending it counts.")
    where: LimitWhere | None = strawberry.field(
        description="Of which requests; null: of all of the scope."
    )
    limit: Money = strawberry.field(description="How much may be spent in a period.")
    enforcement: Enforcement = strawberry.field(description="Whether it refuses.")
    hold: Hold = strawberry.field(description="How much of an open request it holds.")
    steps: list[BudgetStep] = strawberry.field(
        description="What happens as it fills up; that a hard one refuses in the end is implied."
    )
    cooldown_seconds: int | None = strawberry.field(
        description="How often a soft one tells that it is passed, at most; null: once a period."
    )
    next_window: BudgetWindow | None = strawberry.field(
        description="Over which time it will count; null: no change is to come."
    )
    next_window_from: datetime | None = strawberry.field(
        description="When `nextWindow` begins to count: at the end of a period."
    )
    version: int = strawberry.field(description="Counts changes; see `expectedVersion`.")
    row: strawberry.Private[models.Limit]

    @resolved("Over which time it counts.")
    def window(self, info: Info) -> BudgetWindow:
        """Tell the window."""
        return window_shown(self._window(info))

    @resolved("The calendar period; null where it counts days or all time.")
    def period(self, info: Info) -> Period | None:
        """Tell the period."""
        return window_shown(self._window(info)).period

    @resolved("The time zone whose calendar counts; null for all time.")
    def timezone(self, info: Info) -> str | None:
        """Tell the time zone."""
        return window_shown(self._window(info)).timezone

    @resolved("What it has counted in the current period; null where each label is counted alone.")
    async def state(self, info: Info) -> BudgetState | None:
        """Read the live counters, or the ledger where nothing enforces it here."""
        limit = counted(self.row, info.context.backend.installation.now())
        if limit.scope.is_each:
            return None
        state, source = await state_of(info, self.row.organization_id, limit)
        return _budget_state(limit, state, source)

    def _window(self, info: Info) -> Window:
        return window_at(self.row, info.context.backend.installation.now())


@strawberry.type(description="What a scope may do in any 60 seconds.")
class RateLimit(Node):
    """What a scope may do in any 60 seconds."""

    scope: SpendScope = strawberry.field(description="Whose requests it counts.")
    where: LimitWhere | None = strawberry.field(
        description="Which of its requests; null: all of them."
    )
    requests_per_minute: BigInt | None = strawberry.field(
        description="Most requests; null: any number."
    )
    tokens_per_minute: BigInt | None = strawberry.field(
        description="Tokens at which it is stopped; null: any number."
    )
    version: int = strawberry.field(description="Counts changes; see `expectedVersion`.")


@strawberry.type(description="How many requests of a scope may be under way at once.")
class ConcurrencyLimit(Node):
    """How many requests of a scope may be under way at once."""

    scope: SpendScope = strawberry.field(description="Whose requests it counts.")
    where: LimitWhere | None = strawberry.field(
        description="Which of its requests; null: all of them."
    )
    requests: int = strawberry.field(description="Most requests at once.")
    version: int = strawberry.field(description="Counts changes; see `expectedVersion`.")
    row: strawberry.Private[models.Limit]

    @resolved("Requests under way; null where nothing enforces it here, and for each label.")
    def under_way(self, info: Info) -> int | None:
        """Read the live counter."""
        scope = scope_of_row(self.row)
        if scope.is_each:
            return None
        state = info.context.limit_state(self.row.organization_id, scope, self.row.id)
        return None if state is None else state.settled + state.held


def budget_of(row: models.Limit) -> Budget:
    """Show a budget."""
    following = None if row.next_window is None else window_shown(window_from(row.next_window))
    return Budget(
        id=global_id(NodeKind.BUDGET, row.organization_id, row.id),
        scope=scope_of(row.organization_id, scope_of_row(row)),
        where=where_shown(row.where),
        limit=Money(row.cap),
        enforcement=Enforcement(row.mode.value),
        hold=row.hold,
        steps=[_step(step_of(each)) for each in row.steps or ()],
        cooldown_seconds=row.cooldown_s,
        next_window=following,
        next_window_from=row.next_from,
        version=row.version,
        row=row,
    )


def rate_limit_of(organization_id: UUID, pair: LimitPair) -> RateLimit:
    """Show the rates of a scope."""
    requests, tokens = pair.caps
    return RateLimit(
        id=global_id(NodeKind.RATE_LIMIT, organization_id, pair_id_of(pair.scope, pair.where)),
        scope=scope_of(organization_id, pair.scope),
        where=where_shown(pair.where),
        requests_per_minute=None if requests is None else BigInt(requests),
        tokens_per_minute=None if tokens is None else BigInt(tokens),
        version=pair.version,
    )


def concurrency_limit_of(row: models.Limit) -> ConcurrencyLimit:
    """Show how many requests may be under way."""
    return ConcurrencyLimit(
        id=global_id(NodeKind.CONCURRENCY_LIMIT, row.organization_id, row.id),
        scope=scope_of(row.organization_id, scope_of_row(row)),
        where=where_shown(row.where),
        requests=row.cap,
        version=row.version,
        row=row,
    )


def where_shown(where: Where | None) -> LimitWhere | None:
    """Show which requests are counted."""
    found = where_form(where)
    return None if found is None else LimitWhere(**found)


def window_shown(window: Window) -> BudgetWindow:
    """Show over which time is counted."""
    return BudgetWindow(
        **{
            name: getattr(window, field, None)
            for name, field in (
                ("period", "period"),
                ("days", "days"),
                ("anchor", "anchor"),
                ("starts_at", "starts_at"),
                ("timezone", "time_zone"),
            )
        }
    )


def _step(step: Step) -> BudgetStep:
    return BudgetStep(
        percent=step.percent,
        action=step.action,
        model=step.model,
        timeout_seconds=step.timeout_s,
        code=step.code,
        status=step.status,
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


def _budget_state(limit: CountedLimit, state: LimitState, source: CounterSource) -> BudgetState:
    cap_nanos, used = limit.cap, state.settled + state.held
    forecast_ns = exhaustion_at_ns(limit.window, cap_nanos, state.settled, state.as_of_ns)
    return BudgetState(
        settled=Money(state.settled),
        held=Money(state.held),
        remaining=Money(cap_nanos - used),
        resets_at=None if state.resets_at_ns is None else instant(state.resets_at_ns),
        utilization=_share(used, cap_nanos),
        still_held=Money(state.still_held),
        forecast_exhaustion_at=None if forecast_ns is None else instant(forecast_ns),
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
    periods: list[Period] | None = strawberry.field(
        default=None, description="Over these periods; one that is to change counts as it will be."
    )
    enforcement: Enforcement | None = strawberry.field(
        default=None, description="Hard, soft or shadow ones."
    )

    def condition(self) -> ColumnElement[bool]:
        """Write the filter as a condition."""
        found: list[ColumnElement[bool]] = []
        if self.kinds is not None:
            found.append(models.Limit.scope_kind.in_(self.kinds))
        if self.periods is not None:
            slots = (slot_of(None, Resource.SPEND, Calendar(each, "UTC")) for each in self.periods)
            found.append(or_(false(), *(models.Limit.slot.startswith(each) for each in slots)))
        if self.enforcement is not None:
            found.append(models.Limit.mode == Mode(self.enforcement.value))
        return and_(true(), *found)
