"""A whole installation for end-to-end tests: real server, real HTTP, real database, real provider.

The server runs under Granian in a thread of its own, so that tests may block, ask the official
SDKs, and look into the running process.
"""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar
from uuid import UUID

import httpx
import uvloop
from granian.constants import HTTPModes, Interfaces
from granian.server.embed import Server
from sqlalchemy import delete, select

from comptroller.app import Comptroller, create_app
from comptroller.demo import simulated_upstreams
from comptroller.server import http1_settings
from comptroller.settings import Settings
from comptroller.simulator.running import RunningSimulator
from controlplane.access.service import create_access_token
from controlplane.authz import SYSTEM, Role
from controlplane.calibrations.models import Calibration
from controlplane.clock import Clock
from controlplane.context import Installation, Work, unit_of_work
from controlplane.keys.secret import load_or_create_pepper
from controlplane.keys.service import NewKey, create_key
from controlplane.ledger.models import DecisionRow, LedgerEntryRow
from controlplane.limits.models import Period, ScopeKind
from controlplane.limits.service import set_breaker, upsert_budget
from controlplane.limits.subjects import Scope
from controlplane.money import parse_money
from controlplane.tenancy.models import User
from controlplane.tenancy.service import create_member, create_organization, create_team

T = TypeVar("T")
RecordT = TypeVar("RecordT", DecisionRow, LedgerEntryRow)
START_TIMEOUT_S = 60


class Stack:
    """One running installation with one organization, team and member to begin with."""

    def __init__(
        self, comptroller: Comptroller, loop: asyncio.AbstractEventLoop, port: int
    ) -> None:
        self.comptroller = comptroller
        self.engine = comptroller.engine
        self.address = f"http://127.0.0.1:{port}"
        self.base_url = f"{self.address}/v1"
        self._loop = loop
        self._keys = 0
        self.organization_id: UUID
        self.team_id: UUID
        self.member_id: UUID
        self.admin_token: str

    def tenant(self, slug: str) -> Stack:
        """Make a new organization in the same installation, which forgets what it calibrated."""
        tenant = Stack(self.comptroller, self._loop, int(self.address.rsplit(":", 1)[1]))
        tenant.found(slug)
        tenant.forget_calibrations()
        return tenant

    def forget_calibrations(self) -> None:
        """Forget by how much providers were seen to bill more than their bounds."""
        self.run(self.comptroller.recorder.flush)
        self.change(lambda work: work.session.execute(delete(Calibration)))
        self.comptroller.proxy._calibrations.replace({})

    def run(self, make: Callable[[], Awaitable[T]]) -> T:
        """Run something in the server's own loop and wait for it."""

        async def asked() -> T:
            return await make()

        return asyncio.run_coroutine_threadsafe(asked(), self._loop).result(START_TIMEOUT_S)

    def change(self, act: Callable[[Work], Awaitable[T]]) -> T:
        """Change something as the system would: one transaction, in force when this returns."""

        async def changed() -> T:
            comptroller = self.comptroller
            settings = comptroller.settings.control
            installation = Installation(
                settings,
                comptroller.clock,
                comptroller.ids,
                load_or_create_pepper(settings.data_dir),
            )
            async with unit_of_work(
                comptroller.database, installation, comptroller.events, SYSTEM
            ) as work:
                return await act(work)

        return self.run(changed)

    def found(self, slug: str = "acme") -> None:
        """Make the organization, its team, a member and an admin with a token."""
        self.change(lambda work: self._found(work, slug))

    async def _found(self, work: Work, slug: str) -> None:
        organization = await create_organization(work, slug=slug, name=slug)
        self.organization_id = organization.id
        team = await create_team(work, organization.id, name="Research")
        self.team_id = team.id
        member = await create_member(
            work, organization.id, email=f"grace@{slug}.example", team_id=team.id
        )
        self.member_id = member.id
        admin = await create_member(
            work, organization.id, email=f"ada@{slug}.example", role=Role.ADMIN
        )
        user = await work.session.get(User, admin.user_id)
        assert user is not None
        self.admin_token = await create_access_token(work, user=user, member=admin, name="test")

    def key(self, **options: Any) -> tuple[UUID, str]:
        """Make a key of the member in the team; gives its id and secret."""
        self._keys += 1
        new = NewKey(
            f"key {self._keys}", **{"member_id": self.member_id, "team_id": self.team_id, **options}
        )
        created = self.change(
            lambda work: create_key(
                work, self.organization_id, new, idempotency_key=f"key-{self._keys}"
            )
        )
        assert created.secret is not None
        return created.key.id, created.secret

    def scope(self, kind: ScopeKind, key_id: UUID | None = None) -> Scope:
        """Name the organization, its team, its member, or a key as a scope."""
        ids = {
            ScopeKind.ORGANIZATION: self.organization_id,
            ScopeKind.TEAM: self.team_id,
            ScopeKind.MEMBER: self.member_id,
            ScopeKind.KEY: key_id,
        }
        found = ids[kind]
        assert found is not None
        return Scope(kind, found)

    def budget(
        self, scope: Scope, cap: str, *, period: Period = Period.MONTH, version: int | None = None
    ) -> int:
        """Set a hard budget; gives its version."""
        row = self.change(
            lambda work: upsert_budget(
                work,
                self.organization_id,
                scope,
                period=period,
                cap_nanos=parse_money(cap),
                expected_version=version,
            )
        )
        return row.version

    def breaker(self, scope: Scope, *, minute: str | None = None, hour: str | None = None) -> None:
        """Set a scope's own breaker thresholds."""
        self.change(
            lambda work: set_breaker(
                work,
                self.organization_id,
                scope,
                minute_nanos=None if minute is None else parse_money(minute),
                hour_nanos=None if hour is None else parse_money(hour),
            )
        )

    def open_reservations(self) -> int:
        """Count what is still held."""
        return self.engine.open_reservations(str(self.organization_id))

    def records(self) -> list[DecisionRow]:
        """Give all decision records, the oldest first."""
        return self._rows(DecisionRow)

    def ledger(self) -> list[LedgerEntryRow]:
        """Give all ledger entries."""
        return self._rows(LedgerEntryRow)

    def ledger_nanos(self) -> int:
        """Add up all charges."""
        return sum(entry.charge_nanos for entry in self.ledger())

    def _rows(self, kind: type[RecordT]) -> list[RecordT]:
        async def read() -> list[RecordT]:
            await self.comptroller.recorder.flush()
            async with self.comptroller.database.read() as session:
                rows = (await session.scalars(select(kind))).all()
                return [row for row in rows if row.organization_id == self.organization_id]

        rows = self.run(read)
        return sorted(rows, key=lambda row: row.admitted_at_ns)

    def graphql(self, query: str, token: str | None = None, **variables: Any) -> Any:
        """Run an operation as the admin; fails on top-level errors."""
        answer = httpx.post(
            f"{self.address}/graphql",
            json={"query": query, "variables": variables},
            headers={"authorization": f"Bearer {token or self.admin_token}"},
            timeout=START_TIMEOUT_S,
        )
        body = answer.json()
        assert answer.status_code == 200, body
        assert "errors" not in body, body
        return body["data"]


@contextmanager
def running_stack(
    folder: Path,
    provider: RunningSimulator,
    *,
    clock: Clock | None = None,
    database_url: str = "",
    organization: bool = True,
    **proxy_settings: Any,
) -> Iterator[Stack]:
    """Run an installation in a folder, with a simulated provider as its upstream."""
    upstreams = folder / "upstreams.json"
    upstreams.write_text(json.dumps(simulated_upstreams(provider.base_url)))
    settings = Settings.from_environment(
        {
            "COMPTROLLER_DATA_DIR": str(folder),
            "COMPTROLLER_UPSTREAMS_FILE": str(upstreams),
            "COMPTROLLER_DATABASE_URL": database_url,
        }
    )
    settings = replace(settings, proxy=replace(settings.proxy, **proxy_settings))
    server = _ServerThread(settings, clock)
    server.start()
    try:
        stack = server.stack()
        if organization:
            stack.found()
        yield stack
    finally:
        server.stop()


class _ServerThread(threading.Thread):
    def __init__(self, settings: Settings, clock: Clock | None) -> None:
        super().__init__(name="comptroller", daemon=True)
        self._settings = settings
        self._clock = clock
        self._ready: Future[Stack] = Future()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._server: Server | None = None

    def run(self) -> None:
        try:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                runner.run(self._serve())
        except BaseException as failure:  # noqa: BLE001 - handed to the test
            if not self._ready.done():
                self._ready.set_exception(failure)

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        app = create_app(self._settings, clock=self._clock)
        port = free_port()
        self._server = Server(
            app,
            address="127.0.0.1",
            port=port,
            interface=Interfaces.ASGI,
            http=HTTPModes.http1,
            http1_settings=http1_settings(),
            backlog=2048,
            backpressure=20_000,
            websockets=True,
            log_enabled=False,
        )
        serving = asyncio.ensure_future(self._server.serve())
        stack = Stack(app.state.comptroller, self._loop, port)
        await _until_ready(stack.address, serving)
        self._ready.set_result(stack)
        await serving

    def stack(self) -> Stack:
        return self._ready.result(START_TIMEOUT_S)

    def stop(self) -> None:
        if self._loop is not None and self._server is not None and self.is_alive():
            self._loop.call_soon_threadsafe(self._server.stop)
        self.join(START_TIMEOUT_S)


async def _until_ready(address: str, serving: asyncio.Future[None]) -> None:
    async with httpx.AsyncClient() as client:
        while not serving.done():
            try:
                if (await client.get(f"{address}/readyz")).status_code == 200:
                    return
            except httpx.TransportError:
                await asyncio.sleep(0.02)
    await serving


def free_port() -> int:
    """Find a port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
