"""One unit of work: a writing transaction, who asked for it, and what to tell afterwards."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from controlplane.authz import Caller
from controlplane.clock import Clock, instant
from controlplane.db import Database
from controlplane.events import Events, OrganizationChanged
from controlplane.ids import IdSource, RandomBytes
from controlplane.settings import ControlSettings


@dataclass(frozen=True, slots=True)
class Installation:
    """What all work of one installation shares; `pepper` keys the digests of its secrets."""

    settings: ControlSettings
    clock: Clock
    ids: IdSource
    pepper: bytes
    random_bytes: RandomBytes = os.urandom

    def now(self) -> datetime:
        """Read the wall clock as an instant in UTC."""
        return instant(self.clock.wall_ns())


@dataclass(slots=True)
class Work:
    """What a service needs to change something; services flush, the edge commits."""

    session: AsyncSession
    installation: Installation
    caller: Caller
    now: datetime
    installation_changed: bool = False
    _changes: dict[UUID, OrganizationChanged] = field(default_factory=dict)

    def new_id(self) -> UUID:
        """Make an identifier for a row."""
        return self.installation.ids.new_uuid()

    def announce(self, change: OrganizationChanged) -> None:
        """Remember what must be published after the commit, merged per organization."""
        known = self._changes.get(change.organization_id)
        if known is not None:
            change = known.merged(change)
        self._changes[change.organization_id] = change

    def announce_installation(self) -> None:
        """Remember that limits beyond organizations changed."""
        self.installation_changed = True

    def changes(self) -> tuple[OrganizationChanged, ...]:
        """List what must be published, one entry for each organization."""
        return tuple(self._changes.values())


@asynccontextmanager
async def unit_of_work(
    database: Database, installation: Installation, events: Events, caller: Caller
) -> AsyncIterator[Work]:
    """Open one writing transaction; commit and then publish at its end, or roll back on error.

    When it returns, every listener of this process has taken the changes in. They are told also
    when the commit fails or is cancelled, since it may have happened all the same: being told once
    too often costs a reading, once too seldom a limit that does not hold.
    """
    work = None
    try:
        async with database.write() as session:
            begun = Work(session, installation, caller, installation.now())
            yield begun
            work = begun
    finally:
        if work is not None:
            await asyncio.shield(_publish(events, work))


async def _publish(events: Events, work: Work) -> None:
    for change in work.changes():
        await events.publish(change)
    if work.installation_changed:
        await events.publish_installation()
