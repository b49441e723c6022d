"""What Alembic runs: migrations on the connection it was given, in one transaction."""

from __future__ import annotations

from typing import Any, Literal

from alembic import context

from controlplane.columns import UtcDateTime
from controlplane.migrations.tables import METADATA


def render(kind: str, item: Any, _autogenerate: object) -> str | Literal[False]:
    """Spell our column types in SQLAlchemy's, so that a migration depends on no code of ours."""
    if kind == "type" and isinstance(item, UtcDateTime):
        return "sa.DateTime(timezone=True)"
    return False


def run() -> None:
    """Run the migrations."""
    connection = context.config.attributes["connection"]
    context.configure(
        connection=connection,
        target_metadata=METADATA,
        render_as_batch=connection.dialect.name == "sqlite",
        compare_type=True,
        render_item=render,
        # Of SQLite Alembic thinks otherwise, and would commit after each statement.
        transactional_ddl=True,
    )
    with context.begin_transaction():
        context.run_migrations()


run()
