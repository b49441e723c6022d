"""Totals of whatever can spend, many at once."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Select, SQLColumnExpression, select
from sqlalchemy.ext.asyncio import AsyncSession

from controlplane.authz import Caller
from controlplane.clock import Clock
from controlplane.db import Database
from controlplane.keys.models import VirtualKey
from controlplane.ledger.models import DecisionRow
from controlplane.limits.models import ScopeKind
from controlplane.scope import owned
from controlplane.usage.filters import ANY_REQUEST, conditions, within_sight
from controlplane.usage.totals import NOTHING, Totals, parts, read_totals, sums

_COLUMNS: Final[dict[ScopeKind, SQLColumnExpression[Any]]] = {
    ScopeKind.ORGANIZATION: DecisionRow.organization_id,
    ScopeKind.TEAM: DecisionRow.team_id,
    ScopeKind.MEMBER: DecisionRow.member_id,
    ScopeKind.KEY: DecisionRow.key_id,
}


@dataclass(frozen=True, slots=True)
class Spender:
    """Whose spending from `starts_ns` to before `ends_ns` is asked for; None means now."""

    organization_id: UUID
    kind: ScopeKind
    id: UUID
    starts_ns: int
    ends_ns: int | None


@dataclass(frozen=True, slots=True)
class _Batch:
    """What one statement answers."""

    organization_id: UUID
    kind: ScopeKind
    starts_ns: int
    ends_ns: int


def spend_loader(
    database: Database, clock: Clock, caller: Caller
) -> Callable[[list[Spender]], Awaitable[Sequence[Totals]]]:
    """Make what loads totals of the requests a caller may see: a statement per kind and range."""

    async def load(spenders: list[Spender]) -> Sequence[Totals]:
        now_ns = clock.wall_ns()
        batches: dict[_Batch, set[UUID]] = {}
        for each in spenders:
            batches.setdefault(_batch(each, now_ns), set()).add(each.id)
        found: dict[tuple[_Batch, UUID], Totals] = {}
        async with database.read() as session:
            for batch, ids in batches.items():
                totals = await _totals(session, caller, batch, ids)
                found.update({(batch, spender): each for spender, each in totals.items()})
        return [found.get((_batch(each, now_ns), each.id), NOTHING) for each in spenders]

    return load


def last_use_loader(
    database: Database,
) -> Callable[[list[tuple[UUID, UUID]]], Awaitable[Sequence[int | None]]]:
    """Make what loads when keys, each with its organization, were last used."""

    async def load(keys: list[tuple[UUID, UUID]]) -> Sequence[int | None]:
        found: dict[tuple[UUID, UUID], int | None] = {}
        async with database.read() as session:
            for organization_id in {organization_id for organization_id, _ in keys}:
                ids = [key_id for place, key_id in keys if place == organization_id]
                for key_id, at_ns in await session.execute(last_uses_query(organization_id, ids)):
                    found[organization_id, key_id] = at_ns
        return [found.get(each) for each in keys]

    return load


def last_uses_query(organization_id: UUID, key_ids: Sequence[UUID]) -> Select[*tuple[Any, ...]]:
    """Select keys and the instant of the newest request of each, one step down an index each."""
    newest = (
        select(DecisionRow.admitted_at_ns)
        .where(
            DecisionRow.organization_id == VirtualKey.organization_id,
            DecisionRow.key_id == VirtualKey.id,
        )
        .order_by(DecisionRow.admitted_at_ns.desc())
        .limit(1)
        .scalar_subquery()
    )
    return (
        owned(VirtualKey, organization_id)
        .where(VirtualKey.id.in_(key_ids))
        .with_only_columns(VirtualKey.id, newest)
    )


def _batch(spender: Spender, now_ns: int) -> _Batch:
    ends_ns = now_ns if spender.ends_ns is None else spender.ends_ns
    return _Batch(spender.organization_id, spender.kind, spender.starts_ns, ends_ns)


async def _totals(
    session: AsyncSession, caller: Caller, batch: _Batch, ids: set[UUID]
) -> dict[UUID, Totals]:
    allowed = within_sight(caller, batch.organization_id, ANY_REQUEST)
    if allowed is None:
        return {}
    column = _COLUMNS[batch.kind]
    wanted = conditions(batch.organization_id, batch.starts_ns, batch.ends_ns, allowed)
    picked = select(column.label("spender"), *parts()).where(*wanted)
    if batch.kind is not ScopeKind.ORGANIZATION:
        picked = picked.where(column.in_(ids))
    rows = picked.cte("picked")
    query = select(rows.c.spender, *sums(rows)).group_by(rows.c.spender)
    return {row.spender: read_totals(row) for row in await session.execute(query)}
