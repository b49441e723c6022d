"""The migrations make exactly the tables that the code describes."""

from __future__ import annotations

from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, Engine, event
from sqlalchemy.ext.asyncio import create_async_engine

from controlplane.db import async_url
from controlplane.migrations import upgrade
from controlplane.migrations.tables import METADATA
from controlplane.settings import sqlite_url


async def test_migrated_schema_equals_the_metadata(database_url: str) -> None:
    def differences(connection: Connection) -> list[object]:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        return list(compare_metadata(context, METADATA))

    engine = create_async_engine(async_url(database_url))
    async with engine.connect() as connection:
        assert await connection.run_sync(differences) == []
    await engine.dispose()


async def test_upgrading_again_changes_nothing(database_url: str) -> None:
    await upgrade(database_url)
    await upgrade(database_url)


async def test_an_interrupted_upgrade_can_be_tried_again(tmp_path: Path) -> None:
    url = sqlite_url(tmp_path / "old.db")
    await upgrade(url, "0001")
    found = await _tables(url)

    def interrupt(_connection: Connection, _cursor: object, text: str, *_rest: object) -> None:
        # The last change of a migration is to write that it was made.
        if text.startswith("UPDATE alembic_version"):
            raise OSError("no space left on device")

    event.listen(Engine, "before_cursor_execute", interrupt)
    try:
        with pytest.raises(OSError, match="no space left"):
            await upgrade(url)
    finally:
        event.remove(Engine, "before_cursor_execute", interrupt)
    assert await _tables(url) == found
    await upgrade(url)
    assert "cost_centers" in await _tables(url)


async def _tables(url: str) -> set[str]:
    engine = create_async_engine(async_url(url))
    async with engine.connect() as connection:
        rows = await connection.exec_driver_sql("SELECT name, sql FROM sqlite_master")
        found = {text for row in rows for text in row if text}
    await engine.dispose()
    return found
