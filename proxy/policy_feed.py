"""Bringing policy and keys from the control plane into the engine, whole and in order."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING
from uuid import UUID

import msgspec

from controlplane.clock import Clock
from controlplane.events import OrganizationChanged
from controlplane.ledger.queries import counter_sums
from controlplane.policies.snapshot import keys_snapshot, organization_snapshot
from controlplane.tenancy.queries import organization_ids

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession

    from controlplane.db import Database
    from controlplane.ledger.recorder import Recorder
    from controlplane.settings import ControlSettings
    from core_rs import Engine


class PolicyFeed:
    """Loads what changed before the change is answered, so that it holds for the next request."""

    def __init__(
        self,
        engine: Engine,
        database: Database,
        recorder: Recorder,
        clock: Clock,
        settings: ControlSettings,
    ) -> None:
        self._engine = engine
        self._database = database
        self._recorder = recorder
        self._clock = clock
        self._settings = settings
        # Two changes at once: the later snapshot must also be loaded later.
        self._turn = asyncio.Lock()
        self.currencies: dict[str, str] = {}

    async def load_all(self) -> None:
        """Load every organization with its keys; called once, before the first request."""
        async with self._database.read() as session:
            known = await organization_ids(session)
        for organization_id in known:
            await self.apply(OrganizationChanged(organization_id))

    async def apply(self, change: OrganizationChanged) -> None:
        """Load an organization's policy if it changed, and the keys that did (none named: all)."""
        async with self._turn:
            if change.policy:
                await self._load_policy(change.organization_id)
            if change.key_ids or change.policy:
                await self._load_keys(change.organization_id, change.key_ids or None)

    async def _load_policy(self, organization_id: UUID) -> None:
        async with self._database.read() as session:
            snapshot = await self._snapshot(session, organization_id)
        if self._missing(snapshot) == b"[]":
            self._load(snapshot, b"[]")
            return
        # New counters start from the ledger: nothing may be booked between sum and load.
        async with self._recorder.flushed_session() as session:
            snapshot = await self._snapshot(session, organization_id)
            specs = msgspec.json.decode(self._missing(snapshot))
            seeds = await counter_sums(session, organization_id, specs)
            self._load(snapshot, msgspec.json.encode(seeds))

    async def _snapshot(self, session: AsyncSession, organization_id: UUID) -> bytes:
        return await organization_snapshot(session, organization_id, self._settings)

    async def _load_keys(self, organization_id: UUID, key_ids: tuple[UUID, ...] | None) -> None:
        async with self._database.read() as session:
            keys = await keys_snapshot(session, organization_id, key_ids)
        self._engine.load_keys(keys)

    def _missing(self, snapshot: bytes) -> bytes:
        return self._engine.missing_counters(snapshot, self._clock.wall_ns(), self._clock.mono_ns())

    def _load(self, snapshot: bytes, seeds: bytes) -> None:
        self._engine.load_organization(
            snapshot, seeds, self._clock.wall_ns(), self._clock.mono_ns()
        )
        head = msgspec.json.decode(snapshot, type=_SnapshotHead)
        self.currencies[head.organization_id] = head.currency


class _SnapshotHead(msgspec.Struct):
    organization_id: str
    currency: str
