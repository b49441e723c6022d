"""Migrations of the database, and the one call that brings it up to date."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, event
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from controlplane.db import async_url

# Two processes that start at once on PostgreSQL take turns; any constant will do.
MIGRATION_LOCK = 0x636F_6D70


async def upgrade(database_url: str, revision: str = "head") -> None:
    """Bring the schema of a `sqlite:` or `postgresql:` database up to date.

    Does nothing when it is. Of processes that start at once one migrates and the others wait.
    Interrupted, it has changed nothing and can be tried again.
    """
    engine = create_async_engine(async_url(database_url))
    if engine.dialect.name == "sqlite":
        _change_all_or_nothing(engine)
    try:
        async with engine.connect() as connection:
            await connection.run_sync(_upgrade, revision)
    finally:
        await engine.dispose()


def configuration(connection: Connection) -> Config:
    """Make the configuration of Alembic for a connection; there is no file to be found."""
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent))
    config.attributes["connection"] = connection
    return config


def _change_all_or_nothing(engine: AsyncEngine) -> None:
    """Let SQLite change tables in a transaction; its driver would begin one for rows alone."""

    @event.listens_for(engine.sync_engine, "connect")
    def on_connect(connection: Any, _record: object) -> None:
        connection.isolation_level = None
        cursor = connection.cursor()
        cursor.execute("PRAGMA busy_timeout=60000")
        cursor.close()

    @event.listens_for(engine.sync_engine, "begin")
    def on_begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")


def _upgrade(connection: Connection, revision: str) -> None:
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql(f"SELECT pg_advisory_lock({MIGRATION_LOCK})")
        connection.commit()
    command.upgrade(configuration(connection), revision)
    connection.commit()
