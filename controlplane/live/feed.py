"""What the recorder has written, passed on to those who watch an organization."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from controlplane.clock import Clock
from controlplane.events import Events, OrganizationChanged
from controlplane.ledger.records import DecisionRecord
from controlplane.limits.models import ScopeKind
from controlplane.limits.subjects import Scope
from controlplane.live.queries import Seed, seeds_of
from controlplane.live.windows import Figures, Windows

# Of requests that come faster than they are shown the oldest are dropped, and counted.
TAIL_REQUESTS_MAX = 500

FlushedSession = Callable[[], AbstractAsyncContextManager[AsyncSession]]
IsWanted = Callable[[DecisionRecord], bool]


class Tail:
    """The ids of requests put on record since they were last taken.

    Only of those that `is_wanted`: others' requests must neither push them out nor be counted.
    """

    def __init__(self, is_wanted: IsWanted) -> None:
        self._is_wanted = is_wanted
        self._ids: deque[UUID] = deque(maxlen=TAIL_REQUESTS_MAX)
        self._dropped = 0

    def put(self, record: DecisionRecord) -> None:
        """Take note of a request."""
        if not self._is_wanted(record):
            return
        self._dropped += len(self._ids) == TAIL_REQUESTS_MAX
        self._ids.append(UUID(bytes=record.id))

    def take(self) -> tuple[list[UUID], int]:
        """Give all ids, the oldest first, and how many were dropped."""
        ids, dropped = list(self._ids), self._dropped
        self._ids.clear()
        self._dropped = 0
        return ids, dropped


class Watched:
    """One organization while somebody watches it; `changes` counts those of its policy."""

    def __init__(self) -> None:
        self.watchers = 0
        self.changes = 0
        self.tails: set[Tail] = set()
        self.seeding = asyncio.Lock()
        self.is_seeded = False
        self._scopes: dict[tuple[ScopeKind, UUID], Windows] = {}

    def figures(self, scope: Scope, now_ns: int) -> Figures:
        """Tell what a scope did lately."""
        windows = self._scopes.get((scope.kind, scope.id))
        return Figures() if windows is None else windows.figures(now_ns)

    def seed(self, organization_id: UUID, seeds: Sequence[Seed]) -> None:
        """Start from what the tables hold."""
        for each in seeds:
            path = _path(organization_id, each.team_id, each.member_id, each.key_id)
            for windows in self._windows(path):
                windows.add(each.at_ns, each.nanos, requests=each.requests, refused=each.refused)
        self.is_seeded = True

    def take(self, record: DecisionRecord) -> None:
        """Count a record that has been written."""
        for tail in self.tails:
            tail.put(record)
        if not self.is_seeded:
            return
        path = _path(record.organization_id, record.team_id, record.member_id, record.key_id)
        is_refused = record.decision == "refused"
        for windows in self._windows(path):
            windows.add(record.finished_at_ns, 0, requests=1, refused=is_refused)
            if record.entry is not None:
                windows.add(record.entry.settled_at_ns, record.charge_nanos)

    def _windows(self, path: Sequence[tuple[ScopeKind, UUID]]) -> list[Windows]:
        return [self._scopes.setdefault(each, Windows()) for each in path]


class LiveFeed:
    """The organizations of this process that somebody watches; the others cost nothing."""

    def __init__(self, clock: Clock, flushed_session: FlushedSession, events: Events) -> None:
        self._clock = clock
        self._flushed_session = flushed_session
        self._watched: dict[UUID, Watched] = {}
        events.subscribe(self._policy_changed)

    def take(self, batch: Sequence[DecisionRecord]) -> None:
        """Take a batch that has just been written, before anything else is."""
        if not self._watched:
            return
        for record in batch:
            watched = self._watched.get(record.organization_id)
            if watched is not None:
                watched.take(record)

    @asynccontextmanager
    async def watch(self, organization_id: UUID) -> AsyncIterator[Watched]:
        """Watch an organization; its figures are complete from the beginning."""
        watched = self._watched.setdefault(organization_id, Watched())
        watched.watchers += 1
        try:
            async with watched.seeding:
                if not watched.is_seeded:
                    # Tables and feed must meet without a gap: nothing is written in between.
                    async with self._flushed_session() as session:
                        now_ns = self._clock.wall_ns()
                        watched.seed(
                            organization_id, await seeds_of(session, organization_id, now_ns)
                        )
            yield watched
        finally:
            watched.watchers -= 1
            if not watched.watchers:
                del self._watched[organization_id]

    @asynccontextmanager
    async def tail(self, organization_id: UUID, is_wanted: IsWanted) -> AsyncIterator[Tail]:
        """Follow some requests of an organization from now on."""
        watched = self._watched.setdefault(organization_id, Watched())
        watched.watchers += 1
        tail = Tail(is_wanted)
        watched.tails.add(tail)
        try:
            yield tail
        finally:
            watched.tails.discard(tail)
            watched.watchers -= 1
            if not watched.watchers:
                del self._watched[organization_id]

    async def _policy_changed(self, change: OrganizationChanged) -> None:
        watched = self._watched.get(change.organization_id)
        if watched is not None:
            watched.changes += 1


def _path(
    organization_id: UUID, team_id: UUID | None, member_id: UUID | None, key_id: UUID
) -> list[tuple[ScopeKind, UUID]]:
    path = [(ScopeKind.ORGANIZATION, organization_id), (ScopeKind.KEY, key_id)]
    if team_id is not None:
        path.append((ScopeKind.TEAM, team_id))
    if member_id is not None:
        path.append((ScopeKind.MEMBER, member_id))
    return path
