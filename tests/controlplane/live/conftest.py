"""Records as the request path makes them, a recorder, and feeds it fills."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from itertools import count
from typing import Any
from uuid import UUID, uuid4

import pytest

from controlplane.clock import ManualClock
from controlplane.ledger.recorder import Recorder
from controlplane.ledger.records import DecisionRecord, LedgerEntry
from controlplane.live.feed import LiveFeed


@dataclass
class Path:
    """Whose requests they are."""

    organization_id: UUID
    team_id: UUID | None = None
    member_id: UUID | None = None
    key_id: UUID = field(default_factory=uuid4)


@dataclass
class Traffic:
    """Makes records; `charge` None is a refused request."""

    clock: ManualClock
    _seqs: Any = field(default_factory=lambda: count(1))

    def record(
        self, path: Path, charge: int | None = 50_000_000, late_ns: int = 0
    ) -> DecisionRecord:
        at_ns = self.clock.wall_ns() - late_ns
        return DecisionRecord(
            id=uuid4().bytes,
            organization_id=path.organization_id,
            key_id=path.key_id,
            team_id=path.team_id,
            member_id=path.member_id,
            route="/v1/chat/completions",
            policy_version="p1",
            currency="USD",
            invoice_period="2026-03",
            charge_nanos=charge or 0,
            decision="refused" if charge is None else "allowed",
            http_status=402 if charge is None else 200,
            admitted_at_ns=at_ns - 10,
            finished_at_ns=at_ns,
            latency_ns=10,
            engine_version="1",
            entry=None if charge is None else LedgerEntry(settled_at_ns=at_ns),
            seq=0 if charge is None else next(self._seqs),
        )


@pytest.fixture
def traffic(clock: ManualClock) -> Traffic:
    return Traffic(clock)


@dataclass
class Feeds:
    """Two feeds that one recorder fills."""

    recorder: Recorder
    first: LiveFeed
    second: LiveFeed


@pytest.fixture
async def feeds(database, installation, events) -> AsyncIterator[Feeds]:
    fed: list[LiveFeed] = []

    def written(batch: Any) -> None:
        for each in fed:
            each.take(batch)

    recorder = Recorder(database, queue_max=10_000, acknowledge=lambda *_: None, written=written)
    fed += [LiveFeed(installation.clock, recorder.flushed_session, events) for _ in range(2)]
    recorder.start()
    yield Feeds(recorder, *fed)
    await recorder.stop()
