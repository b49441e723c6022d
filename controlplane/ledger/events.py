"""Rows that tell of an event, written in the transaction that books what caused it.

They are few beside records, so that they take the ordinary way. Their ids are derived from what
they tell: a batch that is written twice tells it once.
"""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import sha256
from typing import Any
from uuid import UUID

from sqlalchemy import Table
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncSession

from controlplane.calibrations.models import RATIO_MAX, Calibration, calibration_id
from controlplane.clock import instant
from controlplane.ledger.models import BreakerEventRow, ThresholdCrossingRow
from controlplane.ledger.records import BreakerEvent, Crossing, DecisionRecord

# SQLite binds at most 32,766 parameters in a statement: a row has at most nine.
ROWS_PER_STATEMENT_MAX = 1_000

Values = dict[str, Any]

_TABLES = ThresholdCrossingRow.metadata.tables
_CROSSINGS = _TABLES[ThresholdCrossingRow.__tablename__]
_BREAKER_EVENTS = _TABLES[BreakerEventRow.__tablename__]
_CALIBRATIONS = _TABLES[Calibration.__tablename__]


async def write_crossings(session: AsyncSession, records: Iterable[DecisionRecord]) -> None:
    """Add the percentages that settlements reached; one reached before stays as it was."""
    rows = [_crossing(record, each) for record in records for each in record.crossings]
    await _add(session, _CROSSINGS, rows)


async def write_breaker_events(session: AsyncSession, events: Iterable[BreakerEvent]) -> None:
    """Add openings and closings of breakers; what is there already stays as it is."""
    await _add(session, _BREAKER_EVENTS, [_breaker_event(each) for each in events])


async def raise_calibrations(session: AsyncSession, records: Iterable[DecisionRecord]) -> None:
    """Raise the calibrations of models whose overruns say so; none is ever lowered here."""
    highest: dict[UUID, Values] = {}
    for record in records:
        if record.calibration_raised is None or record.provider is None or record.model is None:
            continue
        row = _calibration(record, record.provider, record.model, record.calibration_raised)
        known = highest.get(row["id"])
        if known is None or known["ratio"] < row["ratio"]:
            highest[row["id"]] = row
    for row in highest.values():
        await _raise(session, row)


def event_id(at_ns: int, *told: object) -> UUID:
    """Name an event by what it tells, sorted by its instant to the nanosecond.

    A breaker may close and open within the millisecond that a version 7 UUID begins with; the
    rest of the instant is where RFC 9562 has room for it, around the two bits of the variant.
    """
    millis, rest_ns = divmod(at_ns, 1_000_000)
    digest = sha256("\0".join(str(each) for each in told).encode()).digest()
    upper = (millis % 2**48) << 80 | 0x7 << 76 | (rest_ns >> 8) << 64
    lower = 0x2 << 62 | (rest_ns & 0xFF) << 54 | int.from_bytes(digest[:7], "big") >> 2
    return UUID(int=upper | lower)


def _crossing(record: DecisionRecord, crossing: Crossing) -> Values:
    at_ns = record.finished_at_ns if record.entry is None else record.entry.settled_at_ns
    name = (
        crossing.limit_id,
        crossing.period_start_ns,
        crossing.percent,
        crossing.repeated_at_ns,
    )
    return {
        "id": event_id(at_ns, record.organization_id, *name),
        "organization_id": record.organization_id,
        "limit_id": crossing.limit_id,
        "period_start_ns": crossing.period_start_ns,
        "percent": crossing.percent,
        "repeated_at_ns": crossing.repeated_at_ns,
        "settled": crossing.settled,
        "cap": crossing.cap,
        "at_ns": at_ns,
    }


def _breaker_event(event: BreakerEvent) -> Values:
    name = (event.organization_id, event.limit_id, event.at_ns, event.is_open)
    return {
        "id": event_id(event.at_ns, *name),
        "organization_id": event.organization_id,
        "limit_id": event.limit_id,
        "scope_kind": event.scope_kind,
        "scope_id": event.scope_id,
        "is_open": event.is_open,
        "sum_nanos": event.sum_nanos,
        "cap_nanos": event.cap_nanos,
        "at_ns": event.at_ns,
    }


def _calibration(record: DecisionRecord, provider: str, model: str, ratio: int) -> Values:
    return {
        "id": calibration_id(provider, model),
        "provider": provider,
        "model": model,
        "ratio": max(1, min(ratio, RATIO_MAX)),
        "raised_at": instant(record.finished_at_ns),
        "request_id": UUID(bytes=record.id),
        "version": 1,
    }


async def _add(session: AsyncSession, table: Table, rows: list[Values]) -> None:
    for start in range(0, len(rows), ROWS_PER_STATEMENT_MAX):
        part = rows[start : start + ROWS_PER_STATEMENT_MAX]
        await session.execute(_insert(session, table).values(part).on_conflict_do_nothing())


async def _raise(session: AsyncSession, row: Values) -> None:
    statement = _insert(session, _CALIBRATIONS).values(row)
    raised = {name: statement.excluded[name] for name in ("ratio", "raised_at", "request_id")}
    await session.execute(
        statement.on_conflict_do_update(
            index_elements=["id"],
            set_={**raised, "version": _CALIBRATIONS.c.version + 1},
            where=_CALIBRATIONS.c.ratio < statement.excluded.ratio,
        )
    )


def _insert(session: AsyncSession, table: Table) -> postgresql.Insert | sqlite.Insert:
    """Begin an insert that says what becomes of a conflict; both databases write it alike."""
    if session.get_bind().dialect.name == "postgresql":
        return postgresql.insert(table)
    return sqlite.insert(table)
