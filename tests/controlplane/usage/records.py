"""Decision records to ask about, and a count of the statements an answer takes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import Select, event, text

from controlplane.db import Database
from controlplane.ledger.models import DecisionRow

START_NS = 1_773_480_413_000_000_000


def request(organization_id: UUID, at_ns: int = START_NS, **fields: Any) -> DecisionRow:
    """Make a record of a request that was let through and cost nothing."""
    numbers = ("input", "output", "cached", "cache_write", "reasoning")
    facts: dict[str, Any] = {
        "id": uuid4(),
        "organization_id": organization_id,
        "key_id": uuid4(),
        "route": "/v1/chat/completions",
        "tags": {},
        "policy_version": "1",
        **{f"{name}_tokens": 0 for name in numbers},
        "held_nanos": 0,
        "cost_nanos": 0,
        "charge_nanos": 0,
        "currency": "USD",
        "invoice_period": "2026-03",
        "usage_source": "none",
        "decision": "allowed",
        "http_status": 200,
        "admitted_at_ns": at_ns,
        "finished_at_ns": at_ns,
        "latency_ns": 0,
        "streamed": False,
        "client_disconnected": False,
        "engine_version": "1",
        "seen": "{}",
    }
    return DecisionRow(**(facts | fields))


async def store(database: Database, *rows: DecisionRow) -> None:
    """Put records into the database."""
    async with database.write() as session:
        session.add_all(rows)


@contextmanager
def counted(database: Database) -> Iterator[list[str]]:
    """Collect the statements that readers send."""
    statements: list[str] = []

    def count(_connection, _cursor, statement, *_rest) -> None:
        if statement != "BEGIN":
            statements.append(statement)

    engine = database._readers.sync_engine
    event.listen(engine, "before_cursor_execute", count)
    try:
        yield statements
    finally:
        event.remove(engine, "before_cursor_execute", count)


async def plan_of(database: Database, query: Select[Any]) -> str:
    """Tell how the database goes about a query, once it has looked at its tables."""
    async with database.write() as session:
        await session.execute(text("ANALYZE decision_records"))
    async with database.read() as session:
        connection = await session.connection()
        explain = "EXPLAIN QUERY PLAN" if connection.dialect.name == "sqlite" else "EXPLAIN"
        written = query.compile(dialect=connection.dialect, compile_kwargs={"literal_binds": True})
        rows = (await connection.exec_driver_sql(f"{explain} {written}")).all()
    return "\n".join(str(row[-1]) for row in rows)
