"""What one API request carries: who asks, and the ways to the data."""

from __future__ import annotations

from collections.abc import AsyncIterator, Hashable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import strawberry
from strawberry.dataloader import DataLoader

from controlplane.api import loaders
from controlplane.api.loaders import CountedKey, PairKey, RowKey, ScopeKey
from controlplane.api.points import Charge
from controlplane.authz import Caller
from controlplane.context import Installation, Work, unit_of_work
from controlplane.db import Database
from controlplane.events import Events
from controlplane.keys.models import KeySecret, VirtualKey
from controlplane.limits.models import Limit
from controlplane.limits.queries import LimitPair
from controlplane.limits.state import LimitState, LimitStates
from controlplane.live.feed import LiveFeed
from controlplane.policies.models import ModelRule
from controlplane.tenancy.models import CostCenter, Member, Organization, Team, User
from controlplane.usage.spend.queries import Spender, last_use_loader, spend_loader
from controlplane.usage.totals import Totals


@dataclass(frozen=True, slots=True)
class Backend:
    """What all API requests of a process share."""

    database: Database
    installation: Installation
    events: Events
    limit_states: LimitStates
    live: LiveFeed


@dataclass(slots=True)
class Context:
    """One API request; loaders gather single look-ups into one query with a session of its own.

    `settled` is what the ledger knows of limits, `children` holds pages of many parents at once.
    """

    backend: Backend
    caller: Caller
    request_id: str
    charge: Charge
    organizations: DataLoader[UUID, Organization | None] = field(init=False)
    users: DataLoader[UUID, User | None] = field(init=False)
    teams: DataLoader[RowKey, Team | None] = field(init=False)
    members: DataLoader[RowKey, Member | None] = field(init=False)
    cost_centers: DataLoader[RowKey, CostCenter | None] = field(init=False)
    keys: DataLoader[RowKey, VirtualKey | None] = field(init=False)
    secrets: DataLoader[RowKey, list[KeySecret]] = field(init=False)
    limits: DataLoader[RowKey, Limit | None] = field(init=False)
    budgets: DataLoader[ScopeKey, list[Limit]] = field(init=False)
    pairs: DataLoader[PairKey, LimitPair] = field(init=False)
    settled: DataLoader[CountedKey, LimitState | None] = field(init=False)
    rules: DataLoader[ScopeKey, ModelRule | None] = field(init=False)
    spending: DataLoader[Spender, Totals] = field(init=False)
    last_uses: DataLoader[RowKey, int | None] = field(init=False)
    children: dict[Hashable, DataLoader[UUID, list[Any]]] = field(default_factory=dict)
    _states: dict[UUID, Mapping[UUID, LimitState]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.renew()

    def renew(self) -> None:
        """Forget what was read: each event of a subscription shows things as they are then."""
        database, clock = self.backend.database, self.backend.installation.clock
        self._states.clear()
        self.children.clear()
        self.organizations = loaders.organizations(database)
        self.users = loaders.users(database)
        self.teams = loaders.rows(database, Team)
        self.members = loaders.rows(database, Member)
        self.cost_centers = loaders.rows(database, CostCenter)
        self.keys = loaders.rows(database, VirtualKey)
        self.secrets = loaders.secrets(database)
        self.limits = loaders.rows(database, Limit)
        self.budgets = loaders.budgets(database)
        self.pairs = loaders.pairs(database)
        self.settled = loaders.settled(database, clock.wall_ns)
        self.rules = loaders.rules(database)
        self.spending = DataLoader(load_fn=spend_loader(database, clock, self.caller))
        self.last_uses = DataLoader(load_fn=last_use_loader(database))

    @asynccontextmanager
    async def work(self) -> AsyncIterator[Work]:
        """Open the writing transaction of a mutation."""
        backend = self.backend
        async with unit_of_work(
            backend.database, backend.installation, backend.events, self.caller
        ) as work:
            yield work

    def limit_state(self, organization_id: UUID, limit_id: UUID) -> LimitState | None:
        """Read the live state of a limit; all of one answer are of the same moment."""
        if organization_id not in self._states:
            self._states[organization_id] = self.backend.limit_states(organization_id)
        return self._states[organization_id].get(limit_id)


Info = strawberry.Info[Context, None]
