"""Rows that were there before a migration are as true after it."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest
from alembic import command
from sqlalchemy import Connection, text
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import create_async_engine

from controlplane.db import async_url
from controlplane.migrations import configuration, upgrade
from controlplane.settings import sqlite_url
from tests.conftest import TEST_DATABASE_VARIABLE

REQUEST, REFUSED, ORGANIZATION, KEY, RULE = (UUID(int=each) for each in range(1, 6))
RECORD: dict[str, Any] = {
    "organization_id": ORGANIZATION,
    "key_id": KEY,
    "agent": "crawler",
    "feature": "search",
    "session": "s",
    "end_user": "u",
    "route": "/v1/chat/completions",
    "tags": "{}",
    "requested_model": "large",
    "provider": "one",
    "policy_version": "p",
    **dict.fromkeys(("input_tokens", "output_tokens", "cached_tokens", "cache_write_tokens"), 1),
    **dict.fromkeys(("reasoning_tokens", "latency_ns", "admitted_at_ns", "finished_at_ns"), 1),
    "held_nanos": 9,
    "cost_nanos": 5,
    "charge_nanos": 5,
    "currency": "USD",
    "invoice_period": "2026-03",
    "usage_source": "provider",
    "decision": "allowed",
    "http_status": 200,
    "streamed": False,
    "client_disconnected": False,
    "engine_version": "1",
    "seen": "{}",
}
ENTRY: dict[str, Any] = {
    "id": REQUEST,
    "organization_id": ORGANIZATION,
    "key_id": KEY,
    "model": "large-2026-01-01",
    "provider": "one",
    **dict.fromkeys(("admitted_at_ns", "settled_at_ns", "cost_nanos", "charge_nanos"), 5),
    **dict.fromkeys(("input_tokens", "output_tokens", "requests", "overrun_nanos"), 1),
    "usage_source": "provider",
}
PLACE: dict[str, Any] = {
    "id": ORGANIZATION,
    "slug": "acme",
    "name": "Acme",
    "currency": "USD",
    "time_zone": "UTC",
    "state": "active",
    "epoch": 1,
    "version": 1,
}


@pytest.fixture(params=["sqlite", "postgresql"])
async def url(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[str]:
    """A database without tables, of either kind."""
    if request.param == "sqlite":
        yield sqlite_url(tmp_path / "old.db")
        return
    address = os.environ.get(TEST_DATABASE_VARIABLE)
    if address is None:
        pytest.skip(f"{TEST_DATABASE_VARIABLE} names no PostgreSQL server")
    name = f"comptroller_old_{uuid4().hex}"
    server = await asyncpg.connect(address)
    await server.execute(f"CREATE DATABASE {name}")
    try:
        yield make_url(address).set(database=name).render_as_string(hide_password=False)
    finally:
        await server.execute(f"DROP DATABASE {name} WITH (FORCE)")
        await server.close()


def _insert(connection: Connection, table: str, values: dict[str, Any]) -> None:
    # SQLite keeps ids as their hex digits.
    is_sqlite = connection.dialect.name == "sqlite"
    given = {
        name: (value.hex if is_sqlite else str(value)) if isinstance(value, UUID) else value
        for name, value in values.items()
    }
    written = ", ".join(
        repr(value) if isinstance(value, str) else str(value) for value in given.values()
    )
    connection.execute(
        text(f"INSERT INTO {table} ({', '.join(given)}) VALUES ({written})".replace(":", r"\:"))
    )


def _fill(connection: Connection) -> None:
    now = "2026-03-01 00:00:00"
    _insert(connection, "organizations", {**PLACE, "created_at": now})
    _insert(connection, "decision_records", {**RECORD, "id": REQUEST, "served_model": "served"})
    _insert(connection, "decision_records", {**RECORD, "id": REFUSED, "decision": "refused"})
    _insert(connection, "ledger_entries", ENTRY)
    rule = {"id": RULE, "organization_id": ORGANIZATION, "scope_kind": "key", "scope_id": KEY}
    values = {**rule, "allow": '["large"]', "version": 3, "created_at": now}
    _insert(connection, "model_rules", values)


async def _run(url: str, work: Any) -> Any:
    engine = create_async_engine(async_url(url))
    async with engine.begin() as connection:
        found = await connection.run_sync(work)
    await engine.dispose()
    return found


def _read(query: str) -> Any:
    def read(connection: Connection) -> list[tuple[Any, ...]]:
        return [tuple(row) for row in connection.execute(text(query))]

    return read


async def test_entries_and_records_are_filled_from_what_is_known(url: str) -> None:
    await upgrade(url, "0002")
    await _run(url, _fill)
    await upgrade(url, "0003")
    names = "model, pools, feature, agent, end_user, session, tier"
    assert await _run(url, _read(f"SELECT {names} FROM ledger_entries")) == [
        ("large", "", "search", "crawler", "u", "s", None)
    ]
    names = "model, bound_nanos, calibration, waited_ns, extensions, pools, assembled"
    query = f"SELECT {names} FROM decision_records ORDER BY id"
    assert await _run(url, _read(query)) == [
        ("large", 9, 1, 0, 0, "", False),
        (None, 9, 1, 0, 0, "", False),
    ]
    query = "SELECT CAST(models AS TEXT), CAST(fixed AS TEXT), scope_kind, version FROM rules"
    assert await _run(url, _read(query)) == [('["large"]', "{}", "key", 3)]


async def test_the_way_back_keeps_what_there_was(url: str) -> None:
    await upgrade(url, "0002")
    await _run(url, _fill)
    await upgrade(url, "0003")
    await _run(url, lambda connection: command.downgrade(configuration(connection), "0002"))
    assert await _run(url, _read("SELECT model FROM ledger_entries")) == [("served",)]
    assert await _run(url, _read("SELECT CAST(allow AS TEXT), version FROM model_rules")) == [
        ('["large"]', 3)
    ]
    await upgrade(url)
