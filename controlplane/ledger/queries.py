"""Sums over ledger entries: what a counter starts from, and what must add up.

One query per window, whatever the number of limits: rows are grouped by key, team and member in
SQL and added up for each scope here.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any, Literal
from uuid import UUID

import msgspec
from sqlalchemy import ColumnElement, Row, Select, SQLColumnExpression, func, literal, select
from sqlalchemy.ext.asyncio import AsyncSession

from controlplane.ledger.models import LedgerEntryRow as Entry

# A rolling window is a ring of this many buckets, and one more that is being filled.
ROLLING_BUCKETS = 60
_SECOND_NS = 1_000_000_000


class Scope(msgspec.Struct, frozen=True):
    """Whose use is counted."""

    kind: Literal["organization", "team", "member", "key"]
    id: UUID


class Where(msgspec.Struct, frozen=True):
    """Which models and providers are counted; an empty list means all."""

    models: tuple[str, ...] = ()
    providers: tuple[str, ...] = ()


class Window(msgspec.Struct, frozen=True):
    """Over which time is counted; `seconds` of a rolling window."""

    kind: Literal["rolling", "calendar", "lifetime"]
    seconds: int | None = None


class CounterSpec(msgspec.Struct, frozen=True):
    """One counter the engine asks for; instants are wall-clock nanoseconds."""

    scope: Scope
    resource: Literal["spend", "requests", "tokens"]
    window: Window
    starts_at_ns: int
    ends_at_ns: int
    where: Where | None = None


class _Span(msgspec.Struct, frozen=True):
    """What one query answers: entries by an instant, from a start, to an end or in buckets."""

    by_admission: bool
    starts_at_ns: int
    ends_at_ns: int | None
    bucket_ns: int | None
    by_model: bool


class _Use(msgspec.Struct, frozen=True):
    """Use of one key, team and member, in one bucket, of one model if models are told apart."""

    ids: dict[str, UUID | None]
    model: str | None
    provider: str | None
    at_ns: int
    amounts: dict[str, int]


async def counter_sums(
    session: AsyncSession, organization_id: UUID, specs: Sequence[dict[str, Any]]
) -> list[dict[str, Any]]:
    """Give each counter specification its `entries`: pairs of wall-clock instant and amount.

    A calendar window gets one entry at its start, over what was *admitted* in [start, end). A
    rolling window gets one for each bucket with use since its start, open at the end, because time
    has passed since the engine asked; the instant is the newest in the bucket, so that nothing
    leaves the window early. It counts spend and tokens when settled, requests when admitted.
    """
    by_span: dict[_Span, list[int]] = defaultdict(list)
    counters = msgspec.convert(specs, list[CounterSpec])
    for index, counter in enumerate(counters):
        by_span[_span(counter)].append(index)
    seeds = [{**spec, "entries": []} for spec in specs]
    for span, indexes in by_span.items():
        uses = await _uses(session, organization_id, span)
        by_scope = _by_scope(uses, {counters[index].scope for index in indexes})
        for index in indexes:
            counter = counters[index]
            seeds[index]["entries"] = _entries(counter, by_scope[counter.scope])
    return seeds


async def charge_totals(session: AsyncSession) -> dict[UUID, int]:
    """Sum the charges of each organization that has entries, in nano units of its currency."""
    query = select(Entry.organization_id, func.sum(Entry.charge_nanos))
    rows = await session.execute(query.group_by(Entry.organization_id))
    return {organization_id: int(total) for organization_id, total in rows}


async def charge_total(session: AsyncSession, organization_id: UUID) -> int:
    """Sum what an organization was charged so far, in nano units of its currency."""
    query = select(func.coalesce(func.sum(Entry.charge_nanos), 0))
    return int(await session.scalar(query.where(Entry.organization_id == organization_id)) or 0)


def _span(counter: CounterSpec) -> _Span:
    bucket_ns = _bucket_ns(counter.window)
    return _Span(
        by_admission=bucket_ns is None or counter.resource == "requests",
        starts_at_ns=counter.starts_at_ns,
        ends_at_ns=counter.ends_at_ns if bucket_ns is None else None,
        bucket_ns=bucket_ns,
        by_model=counter.where is not None,
    )


async def _uses(session: AsyncSession, organization_id: UUID, span: _Span) -> list[_Use]:
    rows = await session.execute(_use_query(organization_id, span))
    return [_use(organization_id, row) for row in rows]


def _use_query(organization_id: UUID, span: _Span) -> Select[*tuple[Any, ...]]:
    instant = Entry.admitted_at_ns if span.by_admission else Entry.settled_at_ns
    owners = (Entry.key_id, Entry.team_id, Entry.member_id)
    groups: list[SQLColumnExpression[Any]] = [*owners]
    models = (Entry.model, Entry.provider) if span.by_model else (literal(None), literal(None))
    if span.by_model:
        groups += [Entry.model, Entry.provider]
    if span.bucket_ns is None:
        at_ns: ColumnElement[int] = literal(span.starts_at_ns)
    else:
        at_ns = func.max(instant)
        groups.append((instant - span.starts_at_ns) // span.bucket_ns)
    conditions = [Entry.organization_id == organization_id, instant >= span.starts_at_ns]
    if span.ends_at_ns is not None:
        conditions.append(instant < span.ends_at_ns)
    tokens = Entry.input_tokens + Entry.output_tokens
    sums = (func.sum(Entry.charge_nanos), func.sum(tokens), func.sum(Entry.requests))
    return select(*owners, *models, at_ns, *sums).where(*conditions).group_by(*groups)


def _use(organization_id: UUID, row: Row[*tuple[Any, ...]]) -> _Use:
    key_id, team_id, member_id, model, provider, at_ns, spend, tokens, requests = row
    return _Use(
        ids={
            "organization": organization_id,
            "team": team_id,
            "member": member_id,
            "key": key_id,
        },
        model=model,
        provider=provider,
        at_ns=int(at_ns),
        amounts={"spend": int(spend), "tokens": int(tokens), "requests": int(requests)},
    )


def _by_scope(uses: Iterable[_Use], scopes: set[Scope]) -> dict[Scope, list[_Use]]:
    """Hand each use to the scopes it belongs to, of those that are asked for."""
    wanted: dict[tuple[str, UUID | None], list[_Use]] = {
        (scope.kind, scope.id): [] for scope in scopes
    }
    for use in uses:
        for owner in use.ids.items():
            if owner in wanted:
                wanted[owner].append(use)
    return {scope: wanted[scope.kind, scope.id] for scope in scopes}


def _entries(counter: CounterSpec, uses: Iterable[_Use]) -> list[list[int]]:
    counting = [
        (use.at_ns, use.amounts[counter.resource]) for use in uses if _counts(counter.where, use)
    ]
    bucket_ns = _bucket_ns(counter.window)
    if bucket_ns is None:
        return [[counter.starts_at_ns, sum(amount for _, amount in counting)]]
    buckets: dict[int, list[int]] = {}
    for at_ns, amount in counting:
        bucket = buckets.setdefault((at_ns - counter.starts_at_ns) // bucket_ns, [at_ns, 0])
        bucket[0] = max(bucket[0], at_ns)
        bucket[1] += amount
    return [bucket for _, bucket in sorted(buckets.items())]


def _bucket_ns(window: Window) -> int | None:
    if window.kind == "calendar" or window.seconds is None:
        return None
    return window.seconds * _SECOND_NS // ROLLING_BUCKETS


def _counts(where: Where | None, use: _Use) -> bool:
    if where is None:
        return True
    return (not where.models or use.model in where.models) and (
        not where.providers or use.provider in where.providers
    )
