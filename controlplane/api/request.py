"""What one API request carries: who asks, and the ways to the data."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TypeVar
from uuid import UUID

import strawberry
from sqlalchemy import select
from strawberry.dataloader import DataLoader

from controlplane.api.points import Charge
from controlplane.authz import Caller
from controlplane.context import Installation, Work, unit_of_work
from controlplane.db import Database
from controlplane.events import Events
from controlplane.limits.state import LimitState, LimitStates
from controlplane.live.feed import LiveFeed
from controlplane.scope import TenantRow, owned
from controlplane.tenancy.models import Member, Team, User

R = TypeVar("R", bound=TenantRow)

# An organization and the id of a row in it.
RowKey = tuple[UUID, UUID]


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
    """One API request; loaders gather single look-ups into one query with a session of its own."""

    backend: Backend
    caller: Caller
    request_id: str
    charge: Charge
    teams: DataLoader[RowKey, Team | None] = field(init=False)
    members: DataLoader[RowKey, Member | None] = field(init=False)
    users: DataLoader[UUID, User | None] = field(init=False)
    _states: dict[UUID, Mapping[UUID, LimitState]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.renew()

    def renew(self) -> None:
        """Forget what was read: each event of a subscription shows things as they are then."""
        self._states.clear()
        self.teams = DataLoader(load_fn=_rows_loader(self.backend.database, Team))
        self.members = DataLoader(load_fn=_rows_loader(self.backend.database, Member))
        self.users = DataLoader(load_fn=_users_loader(self.backend.database))

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


def _rows_loader(
    database: Database, model: type[R]
) -> Callable[[list[RowKey]], Awaitable[Sequence[R | None]]]:
    async def load(keys: list[RowKey]) -> Sequence[R | None]:
        found: dict[RowKey, R] = {}
        async with database.read() as session:
            for organization_id in {key[0] for key in keys}:
                ids = [key[1] for key in keys if key[0] == organization_id]
                query = owned(model, organization_id).where(model.id.in_(ids))
                for row in await session.scalars(query):
                    found[organization_id, row.id] = row
        return [found.get(key) for key in keys]

    return load


def _users_loader(
    database: Database,
) -> Callable[[list[UUID]], Awaitable[Sequence[User | None]]]:
    async def load(ids: list[UUID]) -> Sequence[User | None]:
        async with database.read() as session:
            rows = await session.scalars(select(User).where(User.id.in_(ids)))
            found = {row.id: row for row in rows}
        return [found.get(each) for each in ids]

    return load
