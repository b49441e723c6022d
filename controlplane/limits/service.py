"""Changes to limits; each flushes, puts itself on record and is published after the commit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypedDict
from uuid import UUID

from controlplane.authz import Action, require
from controlplane.context import Work
from controlplane.errors import InvalidInput, Subject
from controlplane.inputs import checked_money, checked_number
from controlplane.limits import queries
from controlplane.limits.allotment import check_allotment
from controlplane.limits.asked import WindowAsked, completed
from controlplane.limits.models import (
    INSTALLATION_KINDS,
    Hold,
    Limit,
    LimitKind,
    Mode,
    Period,
    Resource,
    ScopeKind,
)
from controlplane.limits.queries import LimitPair
from controlplane.limits.rows import LimitValues, archive_limit, pair_id_of, put_limit
from controlplane.limits.steps import Step, checked_cooldown_s, checked_steps, step_of
from controlplane.limits.subjects import Scope, scope_of_row, target_of_scope
from controlplane.limits.where import Where, checked_where
from controlplane.limits.windows import Now, Rolling, Window, slot_of
from controlplane.scope import not_found, subject_of
from controlplane.tenancy.service import policy_changed
from controlplane.versions import check_version

PER_MINUTE_MAX = 10**12
CONCURRENCY_MAX = 10**6

# Resource, window in seconds and mode of what people set together.
_PAIRS = {
    LimitKind.RATE: (
        (Resource.REQUESTS, 60, Mode.HARD),
        (Resource.TOKENS, 60, Mode.METERED),
    ),
    LimitKind.BREAKER: (
        (Resource.SPEND, 60, Mode.METERED),
        (Resource.SPEND, 3600, Mode.METERED),
    ),
}
_WITH_BREAKER = frozenset({ScopeKind.ORGANIZATION, ScopeKind.TEAM, ScopeKind.MEMBER})
# Who sets the limits of these works under them; the others are ceilings of many.
_INSIDE_TEAMS = frozenset({ScopeKind.MEMBER, ScopeKind.MEMBER_IN_TEAM, ScopeKind.KEY})

WhereAsked = Mapping[str, Sequence[str] | None]


class BudgetChanges(TypedDict, total=False):
    """What may be left out of a budget and then stays; at first it holds what is expected."""

    hold: Hold
    steps: Sequence[Step]
    cooldown_s: int | None


async def upsert_budget(
    work: Work,
    organization_id: UUID,
    scope: Scope | None,
    *,
    cap_nanos: int,
    period: Period | None = None,
    window: WindowAsked | None = None,
    where: WhereAsked | None = None,
    mode: Mode = Mode.HARD,
    time_zone: str | None = None,
    changes: BudgetChanges | None = None,
    budget_id: UUID | None = None,
    expected_version: int | None = None,
) -> Limit:
    """Create the budget of a scope, window and choice of requests, or change the one there is.

    `expected_version` None creates. `budget_id` names the one to change, which so may get another
    window; that counts from the next boundary of the old one on. Its scope may be left out then.

    Raises `InvalidInput`, `StaleVersion`, `Conflict` when there is another budget over the new
    window, `CeilingExceeded`, `LimitExceeded`, `NotFound`, `NotPermitted`.
    """
    named = await _named_budget(work, organization_id, budget_id, scope)
    scope = scope if named is None else scope_of_row(named)
    if scope is None:
        raise InvalidInput("Name a scope.", field=("scope",))
    target = await target_of_scope(work.session, organization_id, scope)
    require(work.caller, action_for(scope), target, scope.kind.value)
    checked_money(cap_nanos, "limit")
    asked = window or WindowAsked(period=period, time_zone=time_zone)
    asked.check(may_be_none=named is not None)
    checked = None if where is None else checked_where(where)
    slot = slot_of(checked, Resource.SPEND, asked.like)
    known = named or await _live_in_slot(work, organization_id, scope, LimitKind.BUDGET, slot)
    if known is not None and checked is None:
        checked = known.where
    elif known is not None and checked != known.where:
        raise InvalidInput("Which requests it counts stays; make another.", field=("where",))
    check_version(
        None if known is None else known.version,
        expected_version,
        None if known is None else subject_of(known),
    )
    new = await completed(work, organization_id, scope, asked, known)
    values = _budget_values(scope, new, cap_nanos, mode, checked, changes or {}, known)
    row = await put_limit(work, organization_id, values, known)
    await check_allotment(work, organization_id, target.team_id)
    await policy_changed(work, organization_id)
    return row


async def archive_budget(
    work: Work, organization_id: UUID, limit_id: UUID, *, expected_version: int
) -> Limit:
    """Lift a budget; what it counted stays known.

    Raises `StaleVersion`, `NotFound`, `NotPermitted`.
    """
    return await _archive(work, organization_id, limit_id, LimitKind.BUDGET, expected_version)


async def set_concurrency_limit(
    work: Work,
    organization_id: UUID,
    scope: Scope,
    *,
    requests_max: int,
    where: WhereAsked | None = None,
    expected_version: int | None = None,
) -> Limit:
    """Set how many requests of a scope may be under way at once; 0 stops it.

    Raises `InvalidInput`, `StaleVersion`, `LimitExceeded`, `NotFound`, `NotPermitted`.
    """
    target = await target_of_scope(work.session, organization_id, scope)
    require(work.caller, action_for(scope, Action.RATES_WRITE), target, scope.kind.value)
    checked_number(requests_max, "requests", 0, CONCURRENCY_MAX)
    checked = None if where is None else checked_where(where)
    values = LimitValues(
        LimitKind.CONCURRENCY,
        scope,
        Resource.CONCURRENCY,
        Now(),
        requests_max,
        Mode.HARD,
        where=checked,
    )
    known = await _live_in_slot(work, organization_id, scope, LimitKind.CONCURRENCY, values.slot)
    check_version(
        None if known is None else known.version,
        expected_version,
        None if known is None else Subject("concurrency", organization_id, known.id),
    )
    row = await put_limit(work, organization_id, values)
    await policy_changed(work, organization_id)
    return row


async def archive_concurrency_limit(
    work: Work, organization_id: UUID, limit_id: UUID, *, expected_version: int
) -> Limit:
    """Let any number of requests be under way again.

    Raises `StaleVersion`, `NotFound`, `NotPermitted`.
    """
    kind = LimitKind.CONCURRENCY
    return await _archive(work, organization_id, limit_id, kind, expected_version)


async def set_rate_limit(
    work: Work,
    organization_id: UUID,
    scope: Scope,
    *,
    requests_per_minute: int | None,
    tokens_per_minute: int | None,
    where: WhereAsked | None = None,
    expected_version: int | None = None,
) -> LimitPair:
    """Set what a scope may do in any 60 seconds, in all or of some kinds; None lifts a limit.

    Raises `InvalidInput`, `StaleVersion`, `LimitExceeded`, `NotFound`, `NotPermitted`.
    """
    target = await target_of_scope(work.session, organization_id, scope)
    require(work.caller, action_for(scope, Action.RATES_WRITE), target, scope.kind.value)
    caps = _checked_rates(requests_per_minute, tokens_per_minute)
    checked = None if where is None else checked_where(where)
    return await _set_pair(
        work, organization_id, scope, LimitKind.RATE, caps, expected_version, checked
    )


async def set_new_key_rates(
    work: Work,
    organization_id: UUID,
    key_id: UUID,
    *,
    requests_per_minute: int | None,
    tokens_per_minute: int | None,
) -> None:
    """Give a key that is just being created its rates: who may create it may limit it.

    Raises `InvalidInput`.
    """
    caps = _checked_rates(requests_per_minute, tokens_per_minute)
    scope = Scope(ScopeKind.KEY, key_id)
    await _put_pair(work, organization_id, scope, LimitKind.RATE, caps)


async def set_breaker(
    work: Work,
    organization_id: UUID,
    scope: Scope,
    *,
    minute_nanos: int | None,
    hour_nanos: int | None,
    expected_version: int | None = None,
) -> LimitPair:
    """Set a scope's own breaker thresholds; None inherits.

    Raises `InvalidInput`, `StaleVersion`, `NotFound`, `NotPermitted`.
    """
    if scope.kind not in _WITH_BREAKER:
        raise InvalidInput("A breaker is an organization's, team's or member's.", field=("scope",))
    target = await target_of_scope(work.session, organization_id, scope)
    require(work.caller, Action.BREAKERS_WRITE, target, scope.kind.value)
    caps = (
        None if minute_nanos is None else checked_money(minute_nanos, "perMinute"),
        None if hour_nanos is None else checked_money(hour_nanos, "perHour"),
    )
    return await _set_pair(work, organization_id, scope, LimitKind.BREAKER, caps, expected_version)


def action_for(scope: Scope, inside: Action = Action.MEMBER_LIMITS_WRITE) -> Action:
    """Tell ceilings of many, such as a team's, from the limits that are set under them.

    Raises `NotFound` for what belongs to no organization.
    """
    if scope.kind in INSTALLATION_KINDS:
        raise not_found(scope.kind.value)
    return inside if scope.kind in _INSIDE_TEAMS else Action.LIMITS_WRITE


def _budget_values(
    scope: Scope,
    window: Window,
    cap_nanos: int,
    mode: Mode,
    where: Where | None,
    changes: BudgetChanges,
    known: Limit | None,
) -> LimitValues:
    if mode is Mode.METERED:
        raise InvalidInput("A budget is hard, soft or shadow.", field=("enforcement",))
    kept = [] if known is None or known.steps is None else [step_of(each) for each in known.steps]
    kept_hold = Hold.EXPECTED if known is None else known.hold
    # That of a soft limit goes with its being soft.
    kept_cooldown_s = known.cooldown_s if known is not None and mode is Mode.SOFT else None
    return LimitValues(
        LimitKind.BUDGET,
        scope,
        Resource.SPEND,
        window,
        cap_nanos,
        mode,
        hold=changes.get("hold", kept_hold),
        where=where,
        steps=tuple(checked_steps(changes.get("steps", kept), mode)),
        cooldown_s=checked_cooldown_s(changes.get("cooldown_s", kept_cooldown_s), mode),
    )


async def _named_budget(
    work: Work, organization_id: UUID, budget_id: UUID | None, scope: Scope | None
) -> Limit | None:
    if budget_id is None:
        return None
    row = await queries.live_limit(work.session, organization_id, budget_id, LimitKind.BUDGET)
    if scope is not None and scope_of_row(row) != scope:
        raise not_found("budget")
    return row


async def _live_in_slot(
    work: Work, organization_id: UUID, scope: Scope, kind: LimitKind, slot: str
) -> Limit | None:
    row = await queries.limit_in_slot(work.session, organization_id, scope, kind, slot)
    return row if row is not None and row.archived_at is None else None


async def _archive(
    work: Work, organization_id: UUID, limit_id: UUID, kind: LimitKind, expected_version: int
) -> Limit:
    row = await queries.live_limit(work.session, organization_id, limit_id, kind)
    scope = scope_of_row(row)
    target = await target_of_scope(work.session, organization_id, scope)
    inside = Action.MEMBER_LIMITS_WRITE if kind is LimitKind.BUDGET else Action.RATES_WRITE
    require(work.caller, action_for(scope, inside), target, kind.value)
    subject = subject_of(row) if kind is LimitKind.BUDGET else None
    check_version(
        row.version, expected_version, subject or Subject(kind.value, organization_id, row.id)
    )
    await archive_limit(work, row)
    await policy_changed(work, organization_id)
    return row


async def _set_pair(
    work: Work,
    organization_id: UUID,
    scope: Scope,
    kind: LimitKind,
    caps: Sequence[int | None],
    expected_version: int | None,
    where: Where | None = None,
) -> LimitPair:
    known = await queries.pair_of(work.session, organization_id, scope, kind, where)
    is_rate = kind is LimitKind.RATE
    name = kind.value if is_rate else f"{scope.kind.value}_breaker"
    about = pair_id_of(scope, where) if is_rate else scope.id
    # A breaker that nobody has set is shown at version 0: that may be sent back as well.
    check_version(
        known.version or None, expected_version or None, Subject(name, organization_id, about)
    )
    await _put_pair(work, organization_id, scope, kind, caps, where)
    await policy_changed(work, organization_id)
    return await queries.pair_of(work.session, organization_id, scope, kind, where)


async def _put_pair(
    work: Work,
    organization_id: UUID,
    scope: Scope,
    kind: LimitKind,
    caps: Sequence[int | None],
    where: Where | None = None,
) -> None:
    for (resource, seconds, mode), cap in zip(_PAIRS[kind], caps, strict=True):
        window = Rolling(seconds)
        if cap is not None:
            values = LimitValues(kind, scope, resource, window, cap, mode, where=where)
            await put_limit(work, organization_id, values)
            continue
        slot = slot_of(where, resource, window)
        row = await _live_in_slot(work, organization_id, scope, kind, slot)
        if row is not None:
            await archive_limit(work, row)


def _checked_rates(
    requests_per_minute: int | None, tokens_per_minute: int | None
) -> tuple[int | None, int | None]:
    return (
        _checked_rate(requests_per_minute, "requestsPerMinute"),
        _checked_rate(tokens_per_minute, "tokensPerMinute"),
    )


def _checked_rate(value: int | None, field: str) -> int | None:
    return None if value is None else checked_number(value, field, 0, PER_MINUTE_MAX)
