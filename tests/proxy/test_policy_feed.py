"""A committed change is in force for the next request, or nothing passes until it is."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

import pytest

from controlplane.authz import SYSTEM
from controlplane.clock import ManualClock
from controlplane.context import Installation, unit_of_work
from controlplane.db import Database
from controlplane.events import Events, OrganizationChanged
from controlplane.ids import IdSource
from controlplane.keys.service import NewKey, create_key, revoke_key
from controlplane.ledger.recorder import Recorder
from controlplane.ledger.records import DecisionRecord, LedgerEntry
from controlplane.limits.models import Period, ScopeKind
from controlplane.limits.service import upsert_budget
from controlplane.limits.subjects import Scope
from controlplane.settings import ControlSettings, sqlite_url
from controlplane.tenancy.service import create_organization
from core_rs import Admission, Ask, Engine
from proxy.errors import Problem
from proxy.policy_feed import PolicyFeed

PEPPER = bytes(32)
Act = Callable[[Any], Awaitable[Any]]


class FlakyDatabase:
    """A database whose reads fail while it is told so, or wait."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.fails = False
        self.asked = asyncio.Event()
        self.may_read = asyncio.Event()
        self.may_read.set()

    @asynccontextmanager
    async def read(self) -> AsyncIterator[Any]:
        self.asked.set()
        await self.may_read.wait()
        if self.fails:
            raise OSError("the store is gone")
        async with self._database.read() as session:
            yield session


class DoubtfulDatabase:
    """A database whose next commit is made and then reported as failed, while it is told so."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.is_doubtful = False

    @asynccontextmanager
    async def write(self) -> AsyncIterator[Any]:
        async with self._database.write() as session:
            yield session
        if self.is_doubtful:
            self.is_doubtful = False
            raise OSError("no answer to the commit")


class Feeding:
    """A feed with its engine, and changes that are published to it."""

    def __init__(self, database: Database, clock: ManualClock, settings: ControlSettings) -> None:
        self.clock = clock
        self.store = database
        self.reads = FlakyDatabase(database)
        self.engine = Engine()
        self.writes = DoubtfulDatabase(database)
        writes: Any = self.writes
        self.recorder = Recorder(writes, queue_max=100, acknowledge=self._acknowledge)
        # The feed pauses between attempts until a test ends the pause.
        self.pauses: asyncio.Queue[asyncio.Future[None]] = asyncio.Queue()
        self.feed = self.new_feed(settings)
        self.settings = settings
        self.events = Events()
        self.events.subscribe(self.feed.apply)
        self.installation = Installation(settings, clock, IdSource(clock), PEPPER)

    def new_feed(self, settings: ControlSettings) -> PolicyFeed:
        async def sleep(_pause_s: float) -> None:
            pause = asyncio.get_running_loop().create_future()
            self.pauses.put_nowait(pause)
            await pause

        reads: Any = self.reads
        return PolicyFeed(self.engine, reads, self.recorder, self.clock, settings, sleep=sleep)

    def _acknowledge(self, organization_id: UUID, seq: int) -> None:
        self.engine.booked_through(self.engine.organization_index(str(organization_id)), seq)

    async def change(self, act: Act) -> Any:
        async with unit_of_work(self.store, self.installation, self.events, SYSTEM) as work:
            return await act(work)

    async def organization(self) -> UUID:
        made = await self.change(lambda work: create_organization(work, slug="acme", name="Acme"))
        assert isinstance(made.id, UUID)
        return made.id

    async def budget(
        self, organization_id: UUID, cap_nanos: int, version: int | None = None
    ) -> int:
        scope = Scope(ScopeKind.ORGANIZATION, organization_id)
        row = await self.change(
            lambda work: upsert_budget(
                work,
                organization_id,
                scope,
                period=Period.DAY,
                cap_nanos=cap_nanos,
                expected_version=version,
            )
        )
        return int(row.version)

    def caps(self, organization_id: UUID) -> list[int]:
        now = (self.clock.wall_ns(), self.clock.mono_ns())
        states = json.loads(self.engine.limit_states(str(organization_id), *now))
        return [state["cap"] for state in states]

    async def reads_begin(self) -> None:
        self.reads.asked.clear()
        await self.reads.asked.wait()

    async def end_pause(self) -> None:
        (await self.pauses.get()).set_result(None)


@pytest.fixture
async def feeding(
    tmp_path: Any, sqlite_template: Any, clock: ManualClock
) -> AsyncIterator[Feeding]:
    path = tmp_path / "test.db"
    path.write_bytes(sqlite_template.read_bytes())
    database = Database(sqlite_url(path))
    made = Feeding(database, clock, ControlSettings(data_dir=tmp_path))
    made.recorder.start()
    yield made
    await made.feed.stop()
    await made.recorder.stop()
    await database.aclose()


def _refused(feeding: Feeding, organization_id: UUID) -> Problem:
    with pytest.raises(Problem) as refusal:
        feeding.feed.currencies[str(organization_id)]
    return refusal.value


async def test_a_change_is_in_force_when_it_is_answered(feeding: Feeding) -> None:
    organization_id = await feeding.organization()
    version = await feeding.budget(organization_id, 100)
    await feeding.budget(organization_id, 50, version)
    assert feeding.caps(organization_id) == [50]
    assert feeding.feed.currencies[str(organization_id)] == "USD"


async def test_a_change_that_cannot_be_loaded_closes_its_organization_and_no_other(
    feeding: Feeding,
) -> None:
    organization_id = await feeding.organization()
    other = await feeding.change(lambda work: create_organization(work, slug="b", name="B"))
    version = await feeding.budget(organization_id, 100)
    feeding.reads.fails = True
    await feeding.budget(organization_id, 50, version)
    problem = _refused(feeding, organization_id)
    assert (problem.status, problem.code) == (503, "enforcement_unavailable")
    assert (problem.should_retry, problem.retry_after_s) == (True, 1)
    assert feeding.feed.currencies[str(other.id)] == "USD"


async def test_a_closed_organization_opens_by_itself_under_its_latest_policy(
    feeding: Feeding,
) -> None:
    organization_id = await feeding.organization()
    version = await feeding.budget(organization_id, 100)
    feeding.reads.fails = True
    await feeding.budget(organization_id, 50, version)
    [retrying] = [task for task in asyncio.all_tasks() if task.get_name() == "policy feed"]
    await feeding.end_pause()
    last = await feeding.pauses.get()
    assert feeding.caps(organization_id) == [100]
    _refused(feeding, organization_id)
    feeding.reads.fails = False
    last.set_result(None)
    await retrying
    assert feeding.feed.currencies[str(organization_id)] == "USD"
    assert feeding.caps(organization_id) == [50]


async def test_a_revocation_that_was_not_loaded_is_with_any_later_change(feeding: Feeding) -> None:
    organization_id = await feeding.organization()
    created = await feeding.change(
        lambda work: create_key(work, organization_id, NewKey("ci"), idempotency_key="1")
    )
    feeding.reads.fails = True
    await feeding.change(lambda work: revoke_key(work, organization_id, created.key.id))
    _refused(feeding, organization_id)
    feeding.reads.fails = False
    other = await feeding.change(
        lambda work: create_key(work, organization_id, NewKey("cd"), idempotency_key="2")
    )
    assert feeding.feed.currencies[str(organization_id)] == "USD"
    known = [_is_known(feeding, each) for each in (created.secret, other.secret)]
    assert known == [False, True]


def _is_known(feeding: Feeding, secret: str) -> bool:
    from controlplane.keys.secret import digest  # noqa: PLC0415

    found = feeding.engine.authenticate(digest(secret, PEPPER), feeding.clock.wall_ns())
    return found is not None


async def test_a_change_is_loaded_although_whoever_made_it_has_left(feeding: Feeding) -> None:
    organization_id = await feeding.organization()
    version = await feeding.budget(organization_id, 100)
    feeding.reads.may_read.clear()
    changing = asyncio.ensure_future(feeding.budget(organization_id, 50, version))
    await feeding.reads_begin()
    changing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await changing
    feeding.reads.may_read.set()
    # Changes are taken in one after the other: when the next is in, so is this one.
    await feeding.feed.apply(OrganizationChanged(organization_id, policy=False))
    assert feeding.caps(organization_id) == [50]


async def test_at_the_start_one_organization_that_cannot_be_loaded_stops_no_other(
    feeding: Feeding, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = await feeding.organization()
    fine = await feeding.change(lambda work: create_organization(work, slug="b", name="B"))
    from proxy import policy_feed  # noqa: PLC0415

    snapshot = policy_feed.organization_snapshot

    async def spoiled(session: Any, organization_id: UUID, settings: Any) -> bytes:
        json_text = await snapshot(session, organization_id, settings)
        return b"{}" if organization_id == broken else json_text

    monkeypatch.setattr(policy_feed, "organization_snapshot", spoiled)
    feed = feeding.new_feed(feeding.settings)
    await feed.load_all()
    assert dict(feed.currencies) == {str(fine.id): "USD"}
    await feed.stop()


async def test_at_the_start_a_store_that_fails_is_raised(feeding: Feeding) -> None:
    await feeding.organization()
    feeding.reads.fails = True
    with pytest.raises(OSError, match="gone"):
        await feeding.feed.load_all()


def _admit(feeding: Feeding, number: int, nanos: int) -> None:
    now = (feeding.clock.wall_ns(), feeding.clock.mono_ns())
    name = number.to_bytes(16, "big")
    asked = Ask(
        model="gpt-4o",
        provider="openai",
        input_tokens=0,
        output_tokens_max=0,
        bound_nanos=nanos,
        input_nanos=nanos,
        output_picos=0,
    )
    decision = feeding.engine.admit(0, name, asked, *now)
    assert isinstance(decision, Admission)


def _settle(feeding: Feeding, organization_id: UUID, number: int, nanos: int) -> None:
    now = (feeding.clock.wall_ns(), feeding.clock.mono_ns())
    name = number.to_bytes(16, "big")
    index = feeding.engine.organization_index(str(organization_id))
    settlement = feeding.engine.settle(index, name, nanos, 0, None, *now)
    feeding.recorder.put(
        DecisionRecord(
            id=name,
            organization_id=organization_id,
            key_id=UUID(int=1),
            route="/v1/chat/completions",
            policy_version="p1",
            currency="USD",
            invoice_period="2026-03",
            charge_nanos=nanos,
            decision="allowed",
            http_status=200,
            admitted_at_ns=now[0],
            finished_at_ns=now[0],
            latency_ns=0,
            engine_version="1",
            entry=LedgerEntry(settled_at_ns=now[0]),
            seq=settlement.seq,
        )
    )


@pytest.mark.parametrize("is_doubtful", [False, True])
async def test_a_new_budget_counts_each_request_once_booked_in_doubt_waiting_or_open(
    feeding: Feeding, *, is_doubtful: bool
) -> None:
    organization_id = await feeding.organization()
    await feeding.change(
        lambda work: create_key(work, organization_id, NewKey("ci"), idempotency_key="1")
    )
    for number in range(1, 5):
        _admit(feeding, number, 10 ** (number + 3))
    _settle(feeding, organization_id, 1, 1)
    await feeding.recorder.flush()
    feeding.writes.is_doubtful = is_doubtful
    _settle(feeding, organization_id, 2, 20)
    setting = asyncio.ensure_future(feeding.budget(organization_id, 10**9))
    # What settles while the change is on its way is in one of both places, too.
    await feeding.reads_begin()
    _settle(feeding, organization_id, 3, 300)
    await setting
    now = (feeding.clock.wall_ns(), feeding.clock.mono_ns())
    [state] = json.loads(feeding.engine.limit_states(str(organization_id), *now))
    assert (state["used"], state["held"]) == (321, 10**7)


async def test_only_what_changed_is_loaded(feeding: Feeding) -> None:
    organization_id = await feeding.organization()
    await feeding.feed.apply(OrganizationChanged(organization_id, policy=False))
    assert feeding.feed.currencies[str(organization_id)] == "USD"
