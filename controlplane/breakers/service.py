"""Resetting a breaker by hand."""

from __future__ import annotations

from collections.abc import Mapping
from uuid import UUID

from controlplane.audit.service import facts, record
from controlplane.authz import Action, require
from controlplane.breakers.models import BreakerOffset
from controlplane.breakers.queries import offset_of
from controlplane.clock import nanoseconds
from controlplane.context import Work
from controlplane.errors import Subject
from controlplane.inputs import checked_text
from controlplane.ledger.counters import ROLLING_BUCKETS
from controlplane.limits.models import LimitKind
from controlplane.limits.nesting import BREAKER_WINDOWS_S
from controlplane.limits.queries import LimitPair, pair_of
from controlplane.limits.settled import NANOS_PER_S, counted_breaker, settled_states
from controlplane.limits.state import LimitState
from controlplane.limits.subjects import Scope, target_of_scope
from controlplane.tenancy.service import policy_changed
from controlplane.versions import check_version

REASON_LENGTH_MAX = 200


async def reset_breaker(
    work: Work,
    organization_id: UUID,
    scope: Scope,
    live: Mapping[int, LimitState],
    *,
    expected_version: int,
    reason: str,
) -> LimitPair:
    """Close a breaker: what its windows have counted by now is not held against it any more.

    It goes on counting what comes after. `live` are the states of its windows by their seconds,
    where a process that enforces them says so; otherwise the ledger does.

    Raises `InvalidInput`, `StaleVersion`, `NotFound`, `NotPermitted`.
    """
    target = await target_of_scope(work.session, organization_id, scope)
    require(work.caller, Action.BREAKERS_WRITE, target, "breaker")
    checked = checked_text(reason, "reason", REASON_LENGTH_MAX)
    pair = await pair_of(work.session, organization_id, scope, LimitKind.BREAKER)
    current = Subject(f"{scope.kind.value}_breaker", organization_id, scope.id)
    check_version(pair.version or None, expected_version or None, current)
    row = await offset_of(work.session, organization_id, scope)
    before = None if row is None else facts(row)
    sums = await _sums(work, organization_id, scope, live, row)
    row = await _put(work, organization_id, scope, sums, row)
    record(
        work,
        "breaker.reset",
        row,
        organization_id=organization_id,
        before=before,
        after=facts(row),
        reason=checked,
    )
    await policy_changed(work, organization_id)
    return pair


async def _sums(
    work: Work,
    organization_id: UUID,
    scope: Scope,
    live: Mapping[int, LimitState],
    known: BreakerOffset | None,
) -> dict[int, int]:
    """Find what each window has counted by now, whatever is held against it."""
    now_ns = nanoseconds(work.now)
    unknown = [counted_breaker(scope, each, None) for each in BREAKER_WINDOWS_S if each not in live]
    settled = await settled_states(work.session, organization_id, unknown, now_ns)
    sums = {}
    for seconds in BREAKER_WINDOWS_S:
        state = live.get(seconds)
        if state is None:
            sums[seconds] = settled[counted_breaker(scope, seconds, None).id].settled
            continue
        # What enforces it says its sum less the offset in force.
        amount_nanos, until_ns = (0, 0) if known is None else known.of_window(seconds)
        offset_nanos = amount_nanos if now_ns < until_ns else 0
        sums[seconds] = state.settled + state.running + offset_nanos
    return sums


async def _put(
    work: Work,
    organization_id: UUID,
    scope: Scope,
    sums: Mapping[int, int],
    row: BreakerOffset | None,
) -> BreakerOffset:
    if row is None:
        row = BreakerOffset(
            id=work.new_id(),
            organization_id=organization_id,
            scope_kind=scope.kind,
            scope_id=scope.id,
        )
        work.session.add(row)
    minute_s, hour_s = BREAKER_WINDOWS_S
    row.minute_nanos, row.minute_until_ns = sums[minute_s], _until_ns(work, minute_s)
    row.hour_nanos, row.hour_until_ns = sums[hour_s], _until_ns(work, hour_s)
    row.reset_at = work.now
    await work.session.flush()
    return row


def _until_ns(work: Work, seconds: int) -> int:
    """Tell when all that was counted by now has left the window, the bucket it is in included."""
    window_ns = seconds * NANOS_PER_S
    return nanoseconds(work.now) + window_ns + window_ns // ROLLING_BUCKETS
