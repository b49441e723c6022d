"""What limits have counted, read from the ledger where no engine in this process knows them.

The engine itself says over which time each limit counts, so that both always agree on it.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec
from sqlalchemy.ext.asyncio import AsyncSession

from controlplane.canonical import canonical_hash, canonical_json
from controlplane.columns import Json
from controlplane.ledger.queries import counter_sums
from controlplane.limits.forms import bare_snapshot, limit_form
from controlplane.limits.models import CAP_MAX, Limit, LimitKind, Mode, Resource
from controlplane.limits.nesting import breaker_id
from controlplane.limits.periods import MONO_NS, window_at
from controlplane.limits.state import LimitState
from controlplane.limits.subjects import Scope, scope_of_row
from controlplane.limits.windows import Lifetime, Now, Rolling, Window
from core_rs import Engine

NANOS_PER_S = 1_000_000_000


class CountedLimit(msgspec.Struct, frozen=True):
    """A limit as far as its count is concerned; `cap` says when a breaker is open."""

    id: UUID
    kind: LimitKind
    scope: Scope
    resource: Resource
    window: Window
    cap: int
    where: str | None = None


def counted(row: Limit, now: datetime) -> CountedLimit:
    """Tell what a limit of the table counts at an instant."""
    where = None if row.where is None else canonical_json(row.where).decode()
    window, scope = window_at(row, now), scope_of_row(row)
    return CountedLimit(row.id, row.kind, scope, row.resource, window, row.cap, where)


def counted_breaker(scope: Scope, seconds: int, cap_nanos: int | None) -> CountedLimit:
    """Tell what one window of a scope's breaker counts, also where it has no threshold."""
    cap = CAP_MAX if cap_nanos is None else cap_nanos
    name = breaker_id(scope.kind, scope.id, seconds)
    return CountedLimit(name, LimitKind.BREAKER, scope, Resource.SPEND, Rolling(seconds), cap)


async def settled_states(
    session: AsyncSession, organization_id: UUID, limits: Sequence[CountedLimit], now_ns: int
) -> dict[UUID, LimitState]:
    """Read what each limit has counted by now; nothing is held, as far as the ledger knows.

    One query for each window and its start, whatever the number of limits.
    """
    kept = [each for each in limits if not isinstance(each.window, Now)]
    specs = _specifications(organization_id, kept, now_ns)
    seeds = await counter_sums(session, organization_id, specs)
    by_counter = {_counter_name(seed): seed for seed in seeds}
    states = {
        each.id: _state(each, by_counter[_counter_name(_form(each))], now_ns) for each in kept
    }
    # The ledger knows nothing of what is under way.
    return {each.id: LimitState(0, 0, now_ns) for each in limits} | states


def _specifications(
    organization_id: UUID, limits: Sequence[CountedLimit], now_ns: int
) -> list[dict[str, Any]]:
    snapshot = bare_snapshot(organization_id, [_form(each) for each in limits])
    found: list[dict[str, Any]] = msgspec.json.decode(
        Engine().missing_counters(snapshot, now_ns, MONO_NS)
    )
    return found


def _form(limit: CountedLimit) -> Json:
    """Write a limit as the engine reads it."""
    return limit_form(
        limit.id,
        limit.kind,
        limit.scope,
        limit.resource,
        limit.window.form(),
        limit.cap,
        Mode.METERED if limit.kind is LimitKind.BREAKER else Mode.HARD,
        where=None if limit.where is None else msgspec.json.decode(limit.where),
    )


def _counter_name(form: Json) -> str:
    # The engine may leave out lists that allow all.
    where = {name: names for name, names in (form["where"] or {}).items() if names is not None}
    return canonical_hash((form["scope"], where, form["resource"], form["window"]))


def _state(limit: CountedLimit, seed: Json, now_ns: int) -> LimitState:
    entries = seed["entries"]
    if not isinstance(limit.window, Rolling):
        total = sum(amount for _, amount in entries)
        has_end = not isinstance(limit.window, Lifetime)
        return LimitState(total, 0, now_ns, resets_at_ns=seed["ends_at_ns"] if has_end else None)
    since_ns = now_ns - limit.window.seconds * NANOS_PER_S
    total = sum(amount for at_ns, amount in entries if at_ns > since_ns)
    return LimitState(total, 0, now_ns, is_open=total >= limit.cap)
