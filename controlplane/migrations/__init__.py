"""Migrations of the database, and the one call that brings it up to date."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection
from sqlalchemy.ext.asyncio import create_async_engine

from controlplane.db import async_url

# Two processes that start at once on PostgreSQL take turns; any constant will do.
MIGRATION_LOCK = 0x636F_6D70


async def upgrade(database_url: str, revision: str = "head") -> None:
    """Bring the schema of a `sqlite:` or `postgresql:` database up to date.

    Does nothing when it is. Of processes that start at once one migrates and the others wait.
    """
    engine = create_async_engine(async_url(database_url))
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


def _upgrade(connection: Connection, revision: str) -> None:
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql(f"SELECT pg_advisory_lock({MIGRATION_LOCK})")
    else:
        connection.exec_driver_sql("PRAGMA busy_timeout=60000")
    connection.commit()
    command.upgrade(configuration(connection), revision)
    connection.commit()
