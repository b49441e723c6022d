"""How a batch of records becomes rows, by the cheapest way each driver offers.

Measured on a shared machine (`benchmarks/records.py`; least CPU per record): SQLite takes 31 µs
when each row is its own statement and 15 µs when a statement carries 32 rows, because the thread
gives up and regains the interpreter once per statement. On PostgreSQL pipelined single rows take
22 µs, arrays through `unnest` 63 µs, COPY into a temporary table 80 µs.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import chain
from operator import attrgetter
from typing import Any
from uuid import UUID

from sqlalchemy import Table
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from controlplane.ledger.events import raise_calibrations, write_breaker_events, write_crossings
from controlplane.ledger.models import DecisionRow, LedgerEntryRow
from controlplane.ledger.records import BreakerEvent, DecisionRecord, LedgerEntry
from controlplane.wallets.models import WalletEntry
from controlplane.wallets.usage import USAGE_COLUMNS, Use, usage_rows

# A conversion takes about 3 µs a record: the event loop is let go after at most 0.2 ms.
CONVERT_ROWS_MAX = 64
# 32 rows of 61 columns stay below SQLite's limit of 32,766 parameters; more gain nothing.
STATEMENT_ROWS_MAX = 32
INTEGER_MAX = 2**63 - 1

Values = tuple[Any, ...]

_LED_BY = (
    "id",
    "organization_id",
    "team_id",
    "member_id",
    "key_id",
    "cost_center_id",
    "limit_id",
    "cut_limit_id",
    "tags",
    "seen",
    "steps",
)
_DECISIONS = DecisionRow.metadata.tables["decision_records"]
_ENTRIES = LedgerEntryRow.metadata.tables["ledger_entries"]
_WALLET_ENTRIES = WalletEntry.metadata.tables["wallet_entries"]
_AS_THEY_ARE = tuple(column.name for column in _DECISIONS.columns if column.name not in _LED_BY)
_as_they_are = attrgetter(*_AS_THEY_ARE)
_DECISION_COLUMNS = _LED_BY + _AS_THEY_ARE
_ENTRY_COLUMNS = (
    "id",
    "organization_id",
    "team_id",
    "member_id",
    "key_id",
    "model",
    "provider",
    "tier",
    "pools",
    "feature",
    "agent",
    "end_user",
    "session",
    "admitted_at_ns",
    "settled_at_ns",
    "cost_nanos",
    "charge_nanos",
    "input_tokens",
    "output_tokens",
    "requests",
    "usage_source",
    "overrun_nanos",
)


async def write_batch(
    session: AsyncSession,
    records: Sequence[DecisionRecord],
    events: Sequence[BreakerEvent] = (),
    *,
    cleaned: bool = False,
) -> None:
    """Add records, the entries of those that settled, and all that follows from them.

    That is what they take from prepaid balances, and events of limits and breakers.

    What is there already stays as it is. `cleaned` replaces text that a database refuses (NUL,
    lone surrogates) and clamps integers to 64 bits, so that one odd request cannot hold up all
    others.
    """
    decisions, entries = await _rows(records)
    if cleaned:
        decisions, entries = _clean_rows(decisions), _clean_rows(entries)
    connection = await session.connection()
    await _insert(connection, _DECISIONS, _DECISION_COLUMNS, decisions)
    await _insert(connection, _ENTRIES, _ENTRY_COLUMNS, entries)
    await write_crossings(session, records)
    await raise_calibrations(session, records)
    await write_breaker_events(session, events)
    used = await usage_rows(session, [_use(each) for each in records if each.entry is not None])
    await _insert(connection, _WALLET_ENTRIES, USAGE_COLUMNS, used)


async def _rows(records: Sequence[DecisionRecord]) -> tuple[list[Values], list[Values]]:
    decisions: list[Values] = []
    entries: list[Values] = []
    for count, record in enumerate(records, 1):
        names = _names(record)
        decisions.append(_decision_row(names, record))
        if record.entry is not None:
            entries.append(_entry_row(names, record, record.entry))
        if count % CONVERT_ROWS_MAX == 0:
            await asyncio.sleep(0)
    return decisions, entries


def _names(record: DecisionRecord) -> Values:
    return (
        record.id.hex(),
        record.organization_id.hex,
        _hex(record.team_id),
        _hex(record.member_id),
        record.key_id.hex,
    )


def _decision_row(names: Values, record: DecisionRecord) -> Values:
    return (
        *names,
        _hex(record.cost_center_id),
        _hex(record.limit_id),
        _hex(record.cut_limit_id),
        record.tags.decode("utf-8", "replace"),
        record.seen.decode("utf-8", "replace"),
        record.steps.decode("utf-8", "replace"),
        *_as_they_are(record),
    )


def _entry_row(names: Values, record: DecisionRecord, entry: LedgerEntry) -> Values:
    return (
        *names,
        record.model,
        record.provider,
        record.tier,
        record.pools,
        record.feature,
        record.agent,
        record.end_user,
        record.session,
        record.admitted_at_ns,
        entry.settled_at_ns,
        record.cost_nanos,
        record.charge_nanos,
        record.input_tokens,
        record.output_tokens,
        1,
        record.usage_source,
        entry.overrun_nanos,
    )


def _use(record: DecisionRecord) -> Use:
    settled_at_ns = record.admitted_at_ns if record.entry is None else record.entry.settled_at_ns
    return Use(
        id=UUID(bytes=record.id),
        organization_id=record.organization_id,
        charge_nanos=_clean(record.charge_nanos),
        admitted_at_ns=record.admitted_at_ns,
        settled_at_ns=settled_at_ns,
    )


def _hex(value: UUID | None) -> str | None:
    return None if value is None else value.hex


def _clean_rows(rows: Iterable[Values]) -> list[Values]:
    return [tuple(_clean(value) for value in row) for row in rows]


def _clean(value: Any) -> Any:
    # `bool` is an `int` too and must stay what it is.
    if type(value) is int:
        return max(-INTEGER_MAX, min(INTEGER_MAX, value))
    if type(value) is str:
        text = value.encode("utf-8", "replace").decode()
        # PostgreSQL refuses the character itself in text and its escape in JSON.
        return text.replace("\0", "\ufffd").replace("\\u0000", "\\ufffd")
    return value


async def _insert(
    connection: AsyncConnection, table: Table, columns: tuple[str, ...], rows: list[Values]
) -> None:
    if not rows:
        return
    if connection.dialect.name != "sqlite":
        await connection.exec_driver_sql(_single_row(table.name, columns), rows)
        return
    whole = len(rows) - len(rows) % STATEMENT_ROWS_MAX
    if whole:
        statement = _many_rows(table.name, columns, STATEMENT_ROWS_MAX)
        starts = range(0, whole, STATEMENT_ROWS_MAX)
        flat = [_flat(rows[start : start + STATEMENT_ROWS_MAX]) for start in starts]
        await connection.exec_driver_sql(statement, flat)
    if whole < len(rows):
        statement = _many_rows(table.name, columns, len(rows) - whole)
        await connection.exec_driver_sql(statement, _flat(rows[whole:]))


def _flat(rows: list[Values]) -> Values:
    return tuple(chain.from_iterable(rows))


@lru_cache(maxsize=3)
def _single_row(table: str, columns: tuple[str, ...]) -> str:
    places = ",".join(f"${place}" for place in range(1, len(columns) + 1))
    return _insert_sql(table, columns, f"({places})")


@lru_cache(maxsize=3 * STATEMENT_ROWS_MAX)
def _many_rows(table: str, columns: tuple[str, ...], rows: int) -> str:
    row = f"({','.join('?' * len(columns))})"
    return _insert_sql(table, columns, ",".join([row] * rows))


def _insert_sql(table: str, columns: tuple[str, ...], values: str) -> str:
    # Only names of our own columns get into the text; values are parameters.
    return f"INSERT INTO {table} ({','.join(columns)}) VALUES {values} ON CONFLICT DO NOTHING"  # noqa: S608
