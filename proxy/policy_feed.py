"""Bringing policy and keys from the control plane into the engine, whole and in order.

A change that has been committed and cannot be loaded closes its organization: until the load
succeeds, which is tried again and again, no request of it is decided under the old policy.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final
from uuid import UUID

import msgspec
import structlog

from controlplane.clock import Clock
from controlplane.events import OrganizationChanged
from controlplane.ledger.queries import counter_sums
from controlplane.policies.snapshot import (
    installation_snapshot,
    keys_snapshot,
    organization_snapshot,
)
from controlplane.tenancy.queries import organization_ids
from core_rs import EngineError
from proxy.errors import Problem

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession

    from controlplane.db import Database
    from controlplane.ledger.recorder import Recorder
    from controlplane.settings import ControlSettings
    from core_rs import Engine

LOG: Final = structlog.get_logger("comptroller.proxy")
RETRY_FIRST_S: Final = 0.05
RETRY_MAX_S: Final = 5.0
NO_ORGANIZATION: Final = UUID(int=0)

Sleep = Callable[[float], Awaitable[None]]


class Currencies(dict[str, str]):
    """The currency of each organization whose latest policy is in force; of others none passes."""

    def __missing__(self, organization_id: str) -> str:
        """Refuse a request of an organization whose policy is not the latest.

        Raises `Problem` (503).
        """
        raise Problem(
            503,
            "enforcement_unavailable",
            "The organization's policy cannot be read at the moment, so nothing is let through. "
            "Try again.",
            retry_after_s=1,
            should_retry=True,
        )


def _ignore(_organization_id: str) -> None:
    """Do nothing: nobody wants to hear."""


class PolicyFeed:
    """Loads what changed before the change is answered, so that it holds for the next request."""

    def __init__(
        self,
        engine: Engine,
        database: Database,
        recorder: Recorder,
        clock: Clock,
        settings: ControlSettings,
        *,
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        self._engine = engine
        self._database = database
        self._recorder = recorder
        self._clock = clock
        self._settings = settings
        self._sleep = sleep
        # Two changes at once: the later snapshot must also be loaded later.
        self._turn = asyncio.Lock()
        self._closed: set[UUID] = set()
        self._is_installation_loaded = False
        self._loading: set[asyncio.Task[None]] = set()
        self._retrying: asyncio.Task[None] | None = None
        self.currencies = Currencies()
        self.on_loaded: Callable[[str], None] = _ignore
        """Told of each organization whose policy has been put in force."""

    async def load_all(self) -> None:
        """Load every organization with its keys; called once, before the first request.

        One whose data the engine refuses stays closed; a store that fails is raised.
        """
        await self._load_installation()
        async with self._database.read() as session:
            known = await organization_ids(session)
        for organization_id in known:
            try:
                await self._load_change(OrganizationChanged(organization_id))
            except EngineError:
                LOG.exception("policy_not_loaded", organization_id=str(organization_id))
                self._close(organization_id)

    async def apply(self, change: OrganizationChanged) -> None:
        """Load an organization's policy if it changed, and the keys that did (none named: all).

        The change is committed: that it cannot be loaded, or that whoever made it has left, must
        not leave the old policy in force. In the first case the organization is closed.
        """
        loading = asyncio.create_task(self._load_or_close(change), name="policy change")
        self._loading.add(loading)
        loading.add_done_callback(self._loading.discard)
        await asyncio.shield(loading)

    async def apply_installation(self) -> None:
        """Load the limits that all organizations share, after a committed change of them.

        Where they cannot be loaded, every organization is closed until they can.
        """
        async with self._turn:
            try:
                await self._load_installation()
            except Exception:  # the edge: whatever it is, the old limits must not decide
                LOG.exception("installation_not_loaded")
                self._is_installation_loaded = False
                for organization_id in tuple(self.currencies):
                    self._close(UUID(organization_id))
                return
        for organization_id in tuple(self.currencies):
            self.on_loaded(organization_id)

    async def stop(self) -> None:
        """Try no more to load what could not be loaded."""
        if self._retrying is not None:
            self._retrying.cancel()
            await asyncio.wait({self._retrying})

    async def _load_or_close(self, change: OrganizationChanged) -> None:
        async with self._turn:
            try:
                await self._load_change(change)
            except Exception:  # the edge: whatever it is, the old policy must not decide
                LOG.exception("policy_not_loaded", organization_id=str(change.organization_id))
                self._close(change.organization_id)

    async def _load_change(self, change: OrganizationChanged) -> None:
        organization_id = change.organization_id
        if not self._is_installation_loaded:
            await self._load_installation()
        if organization_id in self._closed:
            # What earlier changes named is not known any more: everything is loaded again.
            change = OrganizationChanged(organization_id)
        head = await self._load_policy(organization_id) if change.policy else None
        if change.key_ids or change.policy:
            await self._load_keys(organization_id, change.key_ids or None)
        if head is not None:
            self.currencies[head.organization_id] = head.currency
            self.on_loaded(head.organization_id)
        self._closed.discard(organization_id)

    def _close(self, organization_id: UUID) -> None:
        """Let nothing of an organization through, and try to load it until that succeeds."""
        self.currencies.pop(str(organization_id), None)
        self._closed.add(organization_id)
        if self._retrying is None or self._retrying.done():
            self._retrying = asyncio.create_task(self._retry(), name="policy feed")

    async def _retry(self) -> None:
        pause_s = RETRY_FIRST_S
        while self._closed:
            await self._sleep(pause_s)
            pause_s = min(2 * pause_s, RETRY_MAX_S)
            for organization_id in tuple(self._closed):
                await self._load_or_close(OrganizationChanged(organization_id))

    async def _load_installation(self) -> None:
        async with self._recorder.flushed_session() as session:
            snapshot = await installation_snapshot(session)
            now = (self._clock.wall_ns(), self._clock.mono_ns())
            specs = msgspec.json.decode(self._engine.missing_shared(snapshot, *now))
            # Counters of the installation are sums over all organizations.
            seeds = await counter_sums(session, NO_ORGANIZATION, specs) if specs else []
            self._engine.load_shared(snapshot, msgspec.json.encode(seeds), *now)
        self._is_installation_loaded = True

    async def _load_policy(self, organization_id: UUID) -> _SnapshotHead:
        async with self._database.read() as session:
            snapshot = await self._snapshot(session, organization_id)
        if self._missing(snapshot) == b"[]":
            return self._load(snapshot, b"[]")
        # New counters start from the ledger: nothing may be booked between sum and load.
        async with self._recorder.flushed_session() as session:
            snapshot = await self._snapshot(session, organization_id)
            specs = msgspec.json.decode(self._missing(snapshot))
            seeds = await counter_sums(session, organization_id, specs)
            return self._load(snapshot, msgspec.json.encode(seeds))

    async def _snapshot(self, session: AsyncSession, organization_id: UUID) -> bytes:
        return await organization_snapshot(session, organization_id, self._settings)

    async def _load_keys(self, organization_id: UUID, key_ids: tuple[UUID, ...] | None) -> None:
        async with self._database.read() as session:
            keys = await keys_snapshot(session, organization_id, key_ids)
        self._engine.load_keys(keys)

    def _missing(self, snapshot: bytes) -> bytes:
        return self._engine.missing_counters(snapshot, self._clock.wall_ns(), self._clock.mono_ns())

    def _load(self, snapshot: bytes, seeds: bytes) -> _SnapshotHead:
        self._engine.load_organization(
            snapshot, seeds, self._clock.wall_ns(), self._clock.mono_ns()
        )
        return msgspec.json.decode(snapshot, type=_SnapshotHead)


class _SnapshotHead(msgspec.Struct):
    organization_id: str
    currency: str
