"""Fixtures that all tests share: databases with their schema, a clock that obeys."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

import asyncpg
import pytest
from sqlalchemy import text
from sqlalchemy.engine import make_url

from controlplane.clock import ManualClock
from controlplane.db import Database
from controlplane.migrations import upgrade
from controlplane.migrations.tables import METADATA
from controlplane.settings import sqlite_url
from tests.installation import installation, provider, shared_provider, stack

__all__ = ["installation", "provider", "shared_provider", "stack"]

TEST_DATABASE_VARIABLE = "COMPTROLLER_TEST_DATABASE_URL"


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(datetime(2026, 3, 14, 9, 26, 53, tzinfo=UTC))


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty, migrated database file, copied for each test."""
    path = tmp_path_factory.mktemp("sqlite") / "template.db"
    asyncio.run(upgrade(sqlite_url(path)))
    return path


@pytest.fixture(scope="session")
def postgresql_url() -> Iterator[str]:
    """A fresh, migrated PostgreSQL database for this session, dropped at its end."""
    address = os.environ.get(TEST_DATABASE_VARIABLE)
    if address is None:
        pytest.skip(f"{TEST_DATABASE_VARIABLE} names no PostgreSQL server")
    name = f"comptroller_test_{uuid4().hex}"
    asyncio.run(_execute(address, f"CREATE DATABASE {name}"))
    try:
        url = make_url(address).set(database=name).render_as_string(hide_password=False)
        asyncio.run(upgrade(url))
        yield url
    finally:
        asyncio.run(_execute(address, f"DROP DATABASE {name} WITH (FORCE)"))


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The address of an empty database with the current schema, of either kind."""
    if request.param == "postgresql":
        return request.getfixturevalue("postgresql_url")
    path = tmp_path / "test.db"
    shutil.copy(request.getfixturevalue("sqlite_template"), path)
    return sqlite_url(path)


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    """An empty database with the current schema, of either kind."""
    opened = Database(database_url)
    if database_url.startswith("postgresql"):
        await _empty(opened)
    yield opened
    await opened.aclose()


async def _empty(database: Database) -> None:
    names = ", ".join(f'"{table.name}"' for table in METADATA.sorted_tables)
    async with database.write() as session:
        await session.execute(text(f"TRUNCATE {names} CASCADE"))


async def _execute(address: str, statement: str) -> None:
    connection = await asyncpg.connect(address)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()
