"""Loaders: single look-ups of one answer, gathered into one query each."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Awaitable, Callable, Hashable, Iterable, Sequence
from datetime import datetime
from typing import Any, TypeVar
from uuid import UUID

from sqlalchemy import Select, func, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import InstrumentedAttribute
from strawberry.dataloader import DataLoader

from controlplane.breakers.models import BreakerOffset
from controlplane.breakers.queries import offsets_of
from controlplane.db import Database, Row
from controlplane.exchange.models import ExchangeRate
from controlplane.exchange.queries import in_force
from controlplane.keys.models import KeySecret
from controlplane.limits.models import Limit, LimitKind
from controlplane.limits.queries import LimitPair, budgets_of_scopes, pairs_named, pairs_of
from controlplane.limits.settled import CountedLimit, settled_states
from controlplane.limits.state import LimitState
from controlplane.limits.subjects import Scope, scope_of_row
from controlplane.plans.models import Plan
from controlplane.policies.models import Rule
from controlplane.policies.queries import rules_of
from controlplane.scope import TenantRow, owned
from controlplane.tenancy.models import Organization, User
from controlplane.tenant_budgets.models import TenantBudget
from controlplane.wallets.models import Wallet
from controlplane.wallets.queries import NOTHING_BOOKED, Standing, standings

R = TypeVar("R", bound=TenantRow)
C = TypeVar("C", bound=Row)
K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

# An organization and what is looked up in it.
RowKey = tuple[UUID, UUID]
ScopeKey = tuple[UUID, Scope]
PairKey = tuple[UUID, tuple[LimitKind, Scope]]
CountedKey = tuple[UUID, CountedLimit]

# Looks up things of one organization in a session of its own.
LookUp = Callable[[AsyncSession, UUID, Sequence[K]], Awaitable[dict[K, V]]]


def in_organizations(
    database: Database, look_up: LookUp[K, V], absent: Callable[[], V]
) -> DataLoader[tuple[UUID, K], V]:
    """Make a loader of things that belong to organizations."""

    async def load(keys: list[tuple[UUID, K]]) -> Sequence[V]:
        wanted: dict[UUID, list[K]] = defaultdict(list)
        for organization_id, key in keys:
            wanted[organization_id].append(key)
        async with database.read() as session:
            found = {
                organization_id: await look_up(session, organization_id, inside)
                for organization_id, inside in wanted.items()
            }
        return [
            found[organization_id][key] if key in found[organization_id] else absent()
            for organization_id, key in keys
        ]

    return DataLoader(load_fn=load)


def rows(database: Database, model: type[R]) -> DataLoader[RowKey, R | None]:
    """Make a loader of rows by id."""

    async def look_up(
        session: AsyncSession, organization_id: UUID, ids: Sequence[UUID]
    ) -> dict[UUID, R | None]:
        query = owned(model, organization_id).where(model.id.in_(ids))
        return {row.id: row for row in await session.scalars(query)}

    return in_organizations(database, look_up, lambda: None)


def organizations(database: Database) -> DataLoader[UUID, Organization | None]:
    """Make a loader of organizations by id."""

    async def load(ids: list[UUID]) -> Sequence[Organization | None]:
        async with database.read() as session:
            found = await session.scalars(select(Organization).where(Organization.id.in_(ids)))
            by_id = {row.id: row for row in found}
        return [by_id.get(each) for each in ids]

    return DataLoader(load_fn=load)


def plans(database: Database) -> DataLoader[UUID, Plan | None]:
    """Make a loader of plans by id."""

    async def load(ids: list[UUID]) -> Sequence[Plan | None]:
        async with database.read() as session:
            found = await session.scalars(select(Plan).where(Plan.id.in_(ids)))
            by_id = {row.id: row for row in found}
        return [by_id.get(each) for each in ids]

    return DataLoader(load_fn=load)


def exchange_rates(
    database: Database, now: Callable[[], datetime]
) -> DataLoader[str, ExchangeRate | None]:
    """Make a loader of the rate in force of a currency."""

    async def load(currencies: list[str]) -> Sequence[ExchangeRate | None]:
        async with database.read() as session:
            found = await in_force(session, currencies, now())
        return [found.get(each) for each in currencies]

    return DataLoader(load_fn=load)


def wallets(database: Database) -> DataLoader[UUID, tuple[Wallet, Standing] | None]:
    """Make a loader of the wallets of organizations, and where they stand."""

    async def load(ids: list[UUID]) -> Sequence[tuple[Wallet, Standing] | None]:
        async with database.read() as session:
            found = await session.scalars(select(Wallet).where(Wallet.organization_id.in_(ids)))
            stand = await standings(session, ids)
            by_place = {
                row.organization_id: (row, stand.get(row.organization_id, NOTHING_BOOKED))
                for row in found
            }
        return [by_place.get(each) for each in ids]

    return DataLoader(load_fn=load)


def tenant_budgets(database: Database) -> DataLoader[UUID, TenantBudget | None]:
    """Make a loader of the tenant budgets in force of organizations."""

    async def load(ids: list[UUID]) -> Sequence[TenantBudget | None]:
        query = select(TenantBudget).where(
            TenantBudget.organization_id.in_(ids), TenantBudget.archived_at.is_(None)
        )
        async with database.read() as session:
            by_place = {row.organization_id: row for row in await session.scalars(query)}
        return [by_place.get(each) for each in ids]

    return DataLoader(load_fn=load)


def users(database: Database) -> DataLoader[UUID, User | None]:
    """Make a loader of users by id."""

    async def load(ids: list[UUID]) -> Sequence[User | None]:
        async with database.read() as session:
            found = await session.scalars(select(User).where(User.id.in_(ids)))
            by_id = {row.id: row for row in found}
        return [by_id.get(each) for each in ids]

    return DataLoader(load_fn=load)


def budgets(database: Database) -> DataLoader[ScopeKey, list[Limit]]:
    """Make a loader of the budgets in force that a scope has itself."""

    async def look_up(
        session: AsyncSession, organization_id: UUID, scopes: Sequence[Scope]
    ) -> dict[Scope, list[Limit]]:
        found = await budgets_of_scopes(session, organization_id, scopes)
        return _gathered(found, scope_of_row)

    return in_organizations(database, look_up, list)


def pairs(database: Database) -> DataLoader[PairKey, LimitPair]:
    """Make a loader of the rates of keys and of scopes' own breaker thresholds."""

    async def look_up(
        session: AsyncSession, organization_id: UUID, wanted: Sequence[tuple[LimitKind, Scope]]
    ) -> dict[tuple[LimitKind, Scope], LimitPair]:
        found: dict[tuple[LimitKind, Scope], LimitPair] = {}
        for kind in sorted({each for each, _ in wanted}):
            scopes = [scope for each, scope in wanted if each is kind]
            for pair in await pairs_of(session, organization_id, scopes, kind):
                found[kind, pair.scope] = pair
        return found

    def absent() -> LimitPair:
        raise AssertionError("every scope has a pair, if an empty one")

    return in_organizations(database, look_up, absent)


def rates(database: Database) -> DataLoader[RowKey, LimitPair | None]:
    """Make a loader of rates by the id of their pair."""

    async def look_up(
        session: AsyncSession, organization_id: UUID, pair_ids: Sequence[UUID]
    ) -> dict[UUID, LimitPair | None]:
        return {**await pairs_named(session, organization_id, pair_ids)}

    return in_organizations(database, look_up, lambda: None)


def rules(database: Database) -> DataLoader[ScopeKey, Rule | None]:
    """Make a loader of the rules that scopes have themselves."""

    async def look_up(
        session: AsyncSession, organization_id: UUID, scopes: Sequence[Scope]
    ) -> dict[Scope, Rule | None]:
        found = await rules_of(session, organization_id, scopes)
        return {Scope(row.scope_kind, row.scope_id): row for row in found}

    return in_organizations(database, look_up, lambda: None)


def offsets(database: Database) -> DataLoader[ScopeKey, BreakerOffset | None]:
    """Make a loader of what breakers were reset by."""

    async def look_up(
        session: AsyncSession, organization_id: UUID, scopes: Sequence[Scope]
    ) -> dict[Scope, BreakerOffset | None]:
        return {**await offsets_of(session, organization_id, scopes)}

    return in_organizations(database, look_up, lambda: None)


def secrets(database: Database) -> DataLoader[RowKey, list[KeySecret]]:
    """Make a loader of the secrets of keys, the newest first."""

    async def look_up(
        session: AsyncSession, organization_id: UUID, ids: Sequence[UUID]
    ) -> dict[UUID, list[KeySecret]]:
        query = owned(KeySecret, organization_id).where(KeySecret.key_id.in_(ids))
        found = await session.scalars(query.order_by(KeySecret.id.desc()))
        return _gathered(found, lambda row: row.key_id)

    return in_organizations(database, look_up, list)


def settled(
    database: Database, now_ns: Callable[[], int]
) -> DataLoader[CountedKey, LimitState | None]:
    """Make a loader of what limits have counted according to the ledger."""

    async def look_up(
        session: AsyncSession, organization_id: UUID, wanted: Sequence[CountedLimit]
    ) -> dict[CountedLimit, LimitState | None]:
        states = await settled_states(session, organization_id, wanted, now_ns())
        return {each: states[each.id] for each in wanted}

    return in_organizations(database, look_up, lambda: None)


def children(
    database: Database,
    query: Select[C],
    row_id: InstrumentedAttribute[UUID],
    parent_id: InstrumentedAttribute[Any],
    *,
    first: int,
    before_id: UUID | None,
) -> DataLoader[UUID, list[C]]:
    """Make a loader of the newest `first` rows, and one more if there is, of each of many parents.

    `query` holds to whom rows must belong; `before_id` is where to go on.
    """

    async def load(parents: list[UUID]) -> Sequence[list[C]]:
        among = query.where(parent_id.in_(parents))
        if before_id is not None:
            among = among.where(row_id < before_id)
        place = func.row_number().over(partition_by=parent_id, order_by=row_id.desc())
        numbered = among.with_only_columns(row_id.label("id"), place.label("place")).subquery()
        chosen = select(numbered.c.id).where(numbered.c.place <= first + 1)
        async with database.read() as session:
            found = await session.scalars(query.where(row_id.in_(chosen)).order_by(row_id.desc()))
            by_parent = _gathered(found, lambda row: getattr(row, parent_id.key))
        return [by_parent.get(each, []) for each in parents]

    return DataLoader(load_fn=load)


def _gathered(found: Iterable[V], key: Callable[[V], K]) -> dict[K, list[V]]:
    gathered: dict[K, list[V]] = defaultdict(list)
    for each in found:
        gathered[key(each)].append(each)
    return gathered
