"""Records to write and a recorder that is stopped at the end."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any
from uuid import UUID, uuid4

import pytest

from controlplane.db import Database
from controlplane.ledger.recorder import Recorder, RecordsUnwritten
from controlplane.ledger.records import DecisionRecord, LedgerEntry

MakeRecord = Callable[..., DecisionRecord]
MakeRecorder = Callable[..., Recorder]


@pytest.fixture
def organization_id() -> UUID:
    return uuid4()


@pytest.fixture
def admitted_at_ns(clock: Any) -> int:
    return clock.wall_ns()


@pytest.fixture
def make_record(organization_id: UUID, admitted_at_ns: int) -> MakeRecord:
    """Make an allowed and settled record; `seq=0` makes one without an entry."""
    key_id = uuid4()

    def make(**fields: Any) -> DecisionRecord:
        seq = fields.get("seq", 0)
        facts: dict[str, Any] = {
            "id": uuid4().bytes,
            "organization_id": organization_id,
            "key_id": key_id,
            "route": "/v1/chat/completions",
            "policy_version": "p1",
            "currency": "USD",
            "invoice_period": "2026-03",
            "charge_nanos": 50_000_000,
            "decision": "allowed",
            "http_status": 200,
            "admitted_at_ns": admitted_at_ns,
            "finished_at_ns": admitted_at_ns + 10,
            "latency_ns": 10,
            "engine_version": "1",
            "entry": LedgerEntry(settled_at_ns=admitted_at_ns + 10) if seq else None,
        }
        return DecisionRecord(**(facts | fields))

    return make


@pytest.fixture
async def make_recorder(database: Database) -> AsyncIterator[MakeRecorder]:
    """Make recorders on the database; each is stopped at the end of the test."""
    made: list[Recorder] = []

    def make(store: Any = database, **arguments: Any) -> Recorder:
        defaults: dict[str, Any] = {"queue_max": 100_000, "acknowledge": lambda *_: None}
        made.append(Recorder(store, **(defaults | arguments)))
        return made[-1]

    yield make
    for recorder in made:
        try:
            await recorder.stop(timeout_s=0)
        except RecordsUnwritten:
            continue
