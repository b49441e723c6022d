"""What one API request carries: who asks, and the ways to the data."""

from __future__ import annotations

from collections.abc import AsyncIterator, Hashable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any
from uuid import UUID

import strawberry
from strawberry.dataloader import DataLoader

from controlplane.api import loaders
from controlplane.api.loaders import CountedKey, PairKey, RowKey, ScopeKey
from controlplane.api.points import Charge
from controlplane.authz import Caller
from controlplane.breakers.models import BreakerOffset
from controlplane.context import Installation, Work, unit_of_work
from controlplane.db import Database
from controlplane.events import Events
from controlplane.exchange.models import ExchangeRate
from controlplane.keys.models import KeySecret, VirtualKey
from controlplane.limits.models import Limit
from controlplane.limits.queries import LimitPair
from controlplane.limits.state import LimitState, LimitStates
from controlplane.limits.subjects import Scope
from controlplane.live.feed import LiveFeed
from controlplane.plans.models import Plan
from controlplane.policies.models import Rule
from controlplane.pools.models import Pool
from controlplane.tenancy.models import CostCenter, Member, Organization, Team, User
from controlplane.tenant_budgets.models import TenantBudget
from controlplane.usage.spend.queries import Spender, last_use_loader, spend_loader
from controlplane.usage.totals import Totals
from controlplane.wallets.models import Wallet
from controlplane.wallets.queries import Standing


@dataclass(frozen=True, slots=True)
class Backend:
    """What all API requests of a process share."""

    database: Database
    installation: Installation
    events: Events
    limit_states: LimitStates
    live: LiveFeed


class Loaders:
    """Ways to rows, each made when it is first asked; what it has read it reads no more."""

    def __init__(self, backend: Backend, caller: Caller) -> None:
        self._database = backend.database
        self._clock = backend.installation.clock
        self._now = backend.installation.now
        self._caller = caller
        # Pages of many parents at once, by the list and the place in it.
        self.children: dict[Hashable, DataLoader[UUID, list[Any]]] = {}
        self.states: dict[ScopeKey, Mapping[UUID, LimitState]] = {}

    @cached_property
    def organizations(self) -> DataLoader[UUID, Organization | None]:
        """Organizations by id."""
        return loaders.organizations(self._database)

    @cached_property
    def users(self) -> DataLoader[UUID, User | None]:
        """Users by id."""
        return loaders.users(self._database)

    @cached_property
    def teams(self) -> DataLoader[RowKey, Team | None]:
        """Teams."""
        return loaders.rows(self._database, Team)

    @cached_property
    def members(self) -> DataLoader[RowKey, Member | None]:
        """Members."""
        return loaders.rows(self._database, Member)

    @cached_property
    def cost_centers(self) -> DataLoader[RowKey, CostCenter | None]:
        """Cost centers."""
        return loaders.rows(self._database, CostCenter)

    @cached_property
    def keys(self) -> DataLoader[RowKey, VirtualKey | None]:
        """Keys."""
        return loaders.rows(self._database, VirtualKey)

    @cached_property
    def pools(self) -> DataLoader[RowKey, Pool | None]:
        """Pools, archived ones too."""
        return loaders.rows(self._database, Pool)

    @cached_property
    def secrets(self) -> DataLoader[RowKey, list[KeySecret]]:
        """The secrets of keys."""
        return loaders.secrets(self._database)

    @cached_property
    def limits(self) -> DataLoader[RowKey, Limit | None]:
        """Limits, archived ones too."""
        return loaders.rows(self._database, Limit)

    @cached_property
    def budgets(self) -> DataLoader[ScopeKey, list[Limit]]:
        """The budgets of scopes."""
        return loaders.budgets(self._database)

    @cached_property
    def pairs(self) -> DataLoader[PairKey, LimitPair]:
        """Rates and breakers of scopes."""
        return loaders.pairs(self._database)

    @cached_property
    def rates(self) -> DataLoader[RowKey, LimitPair | None]:
        """Rates by the id of their pair."""
        return loaders.rates(self._database)

    @cached_property
    def settled(self) -> DataLoader[CountedKey, LimitState | None]:
        """What the ledger knows of limits."""
        return loaders.settled(self._database, self._clock.wall_ns)

    @cached_property
    def offsets(self) -> DataLoader[ScopeKey, BreakerOffset | None]:
        """What breakers of scopes were reset by."""
        return loaders.offsets(self._database)

    @cached_property
    def rules(self) -> DataLoader[ScopeKey, Rule | None]:
        """The rules of scopes."""
        return loaders.rules(self._database)

    @cached_property
    def plans(self) -> DataLoader[UUID, Plan | None]:
        """Plans by id."""
        return loaders.plans(self._database)

    @cached_property
    def exchange_rates(self) -> DataLoader[str, ExchangeRate | None]:
        """The rates in force of currencies."""
        return loaders.exchange_rates(self._database, self._now)

    @cached_property
    def wallets(self) -> DataLoader[UUID, tuple[Wallet, Standing] | None]:
        """The wallets of organizations."""
        return loaders.wallets(self._database)

    @cached_property
    def tenant_budgets(self) -> DataLoader[UUID, TenantBudget | None]:
        """The tenant budgets of organizations."""
        return loaders.tenant_budgets(self._database)

    @cached_property
    def spending(self) -> DataLoader[Spender, Totals]:
        """What was spent in a range of time."""
        return DataLoader(load_fn=spend_loader(self._database, self._clock, self._caller))

    @cached_property
    def last_uses(self) -> DataLoader[RowKey, int | None]:
        """When keys were used last."""
        return DataLoader(load_fn=last_use_loader(self._database))


@dataclass(slots=True)
class Context:
    """One API request; loaders gather single look-ups into one query with a session of its own."""

    backend: Backend
    caller: Caller
    request_id: str
    charge: Charge
    loaders: Loaders = field(init=False)

    def __post_init__(self) -> None:
        self.renew()

    def renew(self) -> None:
        """Forget what was read: each event of a subscription shows things as they are then."""
        self.loaders = Loaders(self.backend, self.caller)

    @asynccontextmanager
    async def work(self) -> AsyncIterator[Work]:
        """Open the writing transaction of a mutation."""
        backend = self.backend
        async with unit_of_work(
            backend.database, backend.installation, backend.events, self.caller
        ) as work:
            yield work

    def limit_state(self, organization_id: UUID, scope: Scope, limit_id: UUID) -> LimitState | None:
        """Read the live state of a limit; all of a scope are of the same moment in one answer."""
        key = (organization_id, scope)
        states = self.loaders.states
        if key not in states:
            states[key] = self.backend.limit_states(organization_id, scope)
        return states[key].get(limit_id)


Info = strawberry.Info[Context, None]
