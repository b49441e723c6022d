"""Changes to limits; each flushes, puts itself on record and is published after the commit."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from controlplane.authz import Action, require
from controlplane.context import Work
from controlplane.errors import InvalidInput, Subject
from controlplane.inputs import checked_money, checked_number, checked_time_zone
from controlplane.limits import queries
from controlplane.limits.models import (
    Limit,
    LimitKind,
    Mode,
    Period,
    Resource,
    ScopeKind,
)
from controlplane.limits.queries import LimitPair
from controlplane.limits.rows import LimitValues, archive_limit, put_limit
from controlplane.limits.subjects import Scope, target_of_scope
from controlplane.limits.windows import Calendar, Rolling, slot_of
from controlplane.scope import subject_of
from controlplane.tenancy.queries import organization_by_id
from controlplane.tenancy.service import policy_changed
from controlplane.versions import check_version

PER_MINUTE_MAX = 10**12

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


async def upsert_budget(
    work: Work,
    organization_id: UUID,
    scope: Scope,
    *,
    period: Period,
    cap_nanos: int,
    mode: Mode = Mode.HARD,
    time_zone: str | None = None,
    expected_version: int | None = None,
) -> Limit:
    """Create the budget of a scope and period, or change the one there is.

    `expected_version` None creates. Without a time zone a new budget takes the organization's and
    an old one keeps its own.

    Raises `InvalidInput`, `StaleVersion`, `NotFound`, `NotPermitted`.
    """
    target = await target_of_scope(work.session, organization_id, scope)
    require(work.caller, _action_for(scope), target, scope.kind.value)
    checked_money(cap_nanos, "limit")
    if mode not in {Mode.HARD, Mode.SOFT}:
        raise InvalidInput("A budget is hard or soft.", field=("enforcement",))
    known = await _live_budget(work, organization_id, scope, period)
    if known is None:
        check_version(None, expected_version, None)
    else:
        check_version(known.version, expected_version, subject_of(known))
    zone = time_zone or await _zone_kept(work, organization_id, known)
    window = Calendar(period, checked_time_zone(zone))
    values = LimitValues(LimitKind.BUDGET, scope, Resource.SPEND, window, cap_nanos, mode)
    row = await put_limit(work, organization_id, values)
    await policy_changed(work, organization_id)
    return row


async def archive_budget(
    work: Work, organization_id: UUID, limit_id: UUID, *, expected_version: int
) -> Limit:
    """Lift a budget; what it counted stays known.

    Raises `StaleVersion`, `NotFound`, `NotPermitted`.
    """
    row = await queries.live_limit(work.session, organization_id, limit_id, LimitKind.BUDGET)
    scope = Scope(row.scope_kind, row.scope_id)
    target = await target_of_scope(work.session, organization_id, scope)
    require(work.caller, _action_for(scope), target, "budget")
    check_version(row.version, expected_version, subject_of(row))
    await archive_limit(work, row)
    await policy_changed(work, organization_id)
    return row


async def set_rate_limit(
    work: Work,
    organization_id: UUID,
    key_id: UUID,
    *,
    requests_per_minute: int | None,
    tokens_per_minute: int | None,
    expected_version: int | None = None,
) -> LimitPair:
    """Set what a key may do in any 60 seconds; None lifts a limit.

    Raises `InvalidInput`, `StaleVersion`, `NotFound`, `NotPermitted`.
    """
    scope = Scope(ScopeKind.KEY, key_id)
    target = await target_of_scope(work.session, organization_id, scope)
    require(work.caller, Action.RATES_WRITE, target, "key")
    caps = _checked_rates(requests_per_minute, tokens_per_minute)
    return await _set_pair(work, organization_id, scope, LimitKind.RATE, caps, expected_version)


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
    if scope.kind is ScopeKind.KEY:
        raise InvalidInput("A breaker is an organization's, team's or member's.", field=("scope",))
    target = await target_of_scope(work.session, organization_id, scope)
    require(work.caller, Action.BREAKERS_WRITE, target, scope.kind.value)
    caps = (
        None if minute_nanos is None else checked_money(minute_nanos, "perMinute"),
        None if hour_nanos is None else checked_money(hour_nanos, "perHour"),
    )
    return await _set_pair(work, organization_id, scope, LimitKind.BREAKER, caps, expected_version)


def _action_for(scope: Scope) -> Action:
    """Tell the limits of an organization or team, which are ceilings, from those under them."""
    is_ceiling = scope.kind in {ScopeKind.ORGANIZATION, ScopeKind.TEAM}
    return Action.LIMITS_WRITE if is_ceiling else Action.MEMBER_LIMITS_WRITE


async def _set_pair(
    work: Work,
    organization_id: UUID,
    scope: Scope,
    kind: LimitKind,
    caps: Sequence[int | None],
    expected_version: int | None,
) -> LimitPair:
    known = await queries.pair_of(work.session, organization_id, scope, kind)
    name = kind.value if kind is LimitKind.RATE else f"{scope.kind.value}_breaker"
    current = Subject(name, organization_id, scope.id)
    # A breaker that nobody has set is shown at version 0: that may be sent back as well.
    check_version(known.version or None, expected_version or None, current)
    await _put_pair(work, organization_id, scope, kind, caps)
    await policy_changed(work, organization_id)
    return await queries.pair_of(work.session, organization_id, scope, kind)


async def _put_pair(
    work: Work,
    organization_id: UUID,
    scope: Scope,
    kind: LimitKind,
    caps: Sequence[int | None],
) -> None:
    for (resource, seconds, mode), cap in zip(_PAIRS[kind], caps, strict=True):
        window = Rolling(seconds)
        if cap is not None:
            values = LimitValues(kind, scope, resource, window, cap, mode)
            await put_limit(work, organization_id, values)
            continue
        slot = slot_of(None, resource, window)
        row = await queries.limit_in_slot(work.session, organization_id, scope, kind, slot)
        if row is not None and row.archived_at is None:
            await archive_limit(work, row)


async def _live_budget(
    work: Work, organization_id: UUID, scope: Scope, period: Period
) -> Limit | None:
    slot = slot_of(None, Resource.SPEND, Calendar(period, "UTC"))
    row = await queries.limit_in_slot(work.session, organization_id, scope, LimitKind.BUDGET, slot)
    return row if row is not None and row.archived_at is None else None


async def _zone_kept(work: Work, organization_id: UUID, known: Limit | None) -> str:
    if known is not None and known.window_time_zone is not None:
        return known.window_time_zone
    return (await organization_by_id(work.session, organization_id)).time_zone


def _checked_rates(
    requests_per_minute: int | None, tokens_per_minute: int | None
) -> tuple[int | None, int | None]:
    return (
        _checked_rate(requests_per_minute, "requestsPerMinute"),
        _checked_rate(tokens_per_minute, "tokensPerMinute"),
    )


def _checked_rate(value: int | None, field: str) -> int | None:
    return None if value is None else checked_number(value, field, 0, PER_MINUTE_MAX)
