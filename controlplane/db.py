"""The database: one way to read, one way to write, SQLite and PostgreSQL alike."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any, ClassVar

from sqlalchemy import MetaData, event
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import (
    AsyncEngine,
    AsyncSession,
    async_sessionmaker,
    create_async_engine,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, declared_attr

from controlplane.columns import UtcDateTime

READ_CONNECTIONS_MAX = 10
# A writer waits this long for another process's transaction (a back-up, a migration).
BUSY_TIMEOUT_MS = 5_000


class Row(DeclarativeBase):
    """Base of every table; names constraints so that migrations can find them."""

    type_annotation_map: ClassVar[dict[Any, Any]] = {datetime: UtcDateTime()}

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }
    )


class Versioned:
    """Mixin of rows that count their changes from 1; of two writers at once the second fails."""

    version: Mapped[int]

    @declared_attr.directive
    @classmethod
    def __mapper_args__(cls) -> dict[str, Any]:
        return {"version_id_col": cls.version}


class Database:
    """A database with many readers and one writer.

    Writers of this process take turns, because SQLite has one writer and because counters are
    seeded from sums that no other writer may change meanwhile (`architecture.md` § 2, 7).
    """

    def __init__(self, url: str) -> None:
        self.url = async_url(url)
        self._sqlite = make_url(self.url).get_backend_name() == "sqlite"
        self._readers = self._engine("BEGIN", READ_CONNECTIONS_MAX)
        self._writers = self._engine("BEGIN IMMEDIATE", 2)
        self._read_session = async_sessionmaker(self._readers, expire_on_commit=False)
        self._write_session = async_sessionmaker(self._writers, expire_on_commit=False)
        self._turn = asyncio.Lock()

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncSession]:
        """Open a session that sees one consistent state and is rolled back at its end."""
        async with self._read_session() as session:
            yield session

    @asynccontextmanager
    async def write(self) -> AsyncIterator[AsyncSession]:
        """Open the one writing transaction; commits at its end, rolls back on any error."""
        async with self._turn, self._write_session.begin() as session:
            yield session

    async def aclose(self) -> None:
        """Close all connections."""
        await self._readers.dispose()
        await self._writers.dispose()

    def _engine(self, begin: str, connections_max: int) -> AsyncEngine:
        engine = create_async_engine(self.url, pool_size=connections_max, max_overflow=0)
        if self._sqlite:
            _configure_sqlite(engine, begin)
        return engine


def async_url(url: str) -> str:
    """Name the asynchronous driver for a plain `sqlite:` or `postgresql:` address."""
    parsed = make_url(url)
    drivers = {"sqlite": "sqlite+aiosqlite", "postgresql": "postgresql+asyncpg"}
    driver = drivers.get(parsed.get_backend_name())
    if driver is None:
        raise ValueError(f"{parsed.drivername} is not supported; use sqlite or postgresql")
    return parsed.set(drivername=driver).render_as_string(hide_password=False)


def _configure_sqlite(engine: AsyncEngine, begin: str) -> None:
    @event.listens_for(engine.sync_engine, "connect")
    def on_connect(connection: Any, _record: object) -> None:
        # The driver's own transaction handling would begin too late to take the write lock.
        connection.isolation_level = None
        cursor = connection.cursor()
        cursor.execute("PRAGMA journal_mode=WAL")
        cursor.execute("PRAGMA synchronous=FULL")
        cursor.execute("PRAGMA foreign_keys=ON")
        cursor.execute(f"PRAGMA busy_timeout={BUSY_TIMEOUT_MS}")
        cursor.close()

    @event.listens_for(engine.sync_engine, "begin")
    def on_begin(connection: Any) -> None:
        connection.exec_driver_sql(begin)
