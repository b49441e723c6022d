"""What limits have counted, read from the ledger where no engine in this process knows them.

The engine itself says over which time each limit counts, so that both always agree on it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

import msgspec
from sqlalchemy.ext.asyncio import AsyncSession

from controlplane.canonical import canonical_hash, canonical_json
from controlplane.columns import Json
from controlplane.ledger.queries import counter_sums
from controlplane.limits.models import CAP_MAX, Limit, LimitKind, Mode, Resource
from controlplane.limits.nesting import breaker_id
from controlplane.limits.state import LimitState
from controlplane.limits.subjects import Scope
from controlplane.limits.windows import Calendar, Rolling, Window
from core_rs import Engine

NANOS_PER_S = 1_000_000_000
# No request lies this far back, and the engine only wants a clock that does not go back.
_MONO_NS = 1 << 62


class CountedLimit(msgspec.Struct, frozen=True):
    """A limit as far as its count is concerned; `cap` says when a breaker is open."""

    id: UUID
    kind: LimitKind
    scope: Scope
    resource: Resource
    window: Window
    cap: int
    where: str | None = None


def counted(row: Limit) -> CountedLimit:
    """Tell what a limit of the table counts."""
    window: Window
    if row.window_period is not None and row.window_time_zone is not None:
        window = Calendar(row.window_period, row.window_time_zone)
    else:
        window = Rolling(row.window_seconds or 0)
    scope = Scope(row.scope_kind, row.scope_id)
    where = None if row.where is None else canonical_json(row.where).decode()
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
    specs = _specifications(organization_id, limits, now_ns)
    seeds = await counter_sums(session, organization_id, specs)
    by_counter = {_counter_name(seed): seed for seed in seeds}
    return {
        each.id: _state(each, by_counter[_counter_name(_form(each))], now_ns) for each in limits
    }


def _specifications(
    organization_id: UUID, limits: Sequence[CountedLimit], now_ns: int
) -> list[dict[str, Any]]:
    content = {
        "organization_id": str(organization_id),
        "state": "active",
        "currency": "USD",
        "limits": sorted((_form(each) for each in limits), key=lambda each: str(each["id"])),
        "rules": [],
    }
    snapshot = canonical_json({**content, "version": canonical_hash(content)})
    found: list[dict[str, Any]] = msgspec.json.decode(
        Engine().missing_counters(snapshot, now_ns, _MONO_NS)
    )
    return found


def _form(limit: CountedLimit) -> Json:
    """Write a limit as the engine reads it."""
    if isinstance(limit.window, Rolling):
        window: Json = {"kind": "rolling", "seconds": limit.window.seconds}
    else:
        period, time_zone = limit.window.period.value, limit.window.time_zone
        window = {"kind": "calendar", "period": period, "time_zone": time_zone}
    return {
        "id": str(limit.id),
        "kind": limit.kind.value,
        "scope": {"kind": limit.scope.kind.value, "id": str(limit.scope.id)},
        "where": None if limit.where is None else msgspec.json.decode(limit.where),
        "resource": limit.resource.value,
        "window": window,
        "cap": limit.cap,
        "mode": (Mode.METERED if limit.kind is LimitKind.BREAKER else Mode.HARD).value,
        "hold": "bound",
    }


def _counter_name(form: Json) -> str:
    parts = (form["scope"], form["where"], form["resource"], form["window"])
    return canonical_hash(parts)


def _state(limit: CountedLimit, seed: Json, now_ns: int) -> LimitState:
    entries = seed["entries"]
    if not isinstance(limit.window, Rolling):
        total = sum(amount for _, amount in entries)
        return LimitState(total, 0, now_ns, resets_at_ns=seed["ends_at_ns"])
    since_ns = now_ns - limit.window.seconds * NANOS_PER_S
    total = sum(amount for at_ns, amount in entries if at_ns > since_ns)
    return LimitState(total, 0, now_ns, is_open=total >= limit.cap)
