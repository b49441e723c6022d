"""Records to book, and processes that book them at once."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from controlplane.db import Database
from tests.controlplane.ledger.conftest import admitted_at_ns, make_record, organization_id

__all__ = ["admitted_at_ns", "make_record", "organization_id"]


@pytest.fixture
async def processes(database: Database, database_url: str) -> AsyncIterator[list[Database]]:
    """Three ways to the test's database that know nothing of each other."""
    opened = [Database(database_url) for _ in range(3)]
    yield opened
    for each in opened:
        await each.aclose()
