"""All that is stored, to tell that a refusal changed nothing."""

from __future__ import annotations

from sqlalchemy import select

from controlplane.db import Database
from controlplane.migrations.tables import METADATA


async def everything(database: Database) -> dict[str, list[str]]:
    """Every row of every table."""
    async with database.read() as session:
        return {
            table.name: sorted(repr(tuple(row)) for row in await session.execute(select(table)))
            for table in METADATA.sorted_tables
        }
