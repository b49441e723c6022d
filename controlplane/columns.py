"""Column types and constraints that several tables share."""

from __future__ import annotations

from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import JSON, Dialect, Enum, ForeignKeyConstraint
from sqlalchemy import DateTime as SqlDateTime
from sqlalchemy.types import TypeDecorator

CHOICE_LENGTH_MAX = 20

Json = dict[str, Any]


class UtcDateTime(TypeDecorator[datetime]):
    """An aware instant; SQLite keeps no zone, so that UTC is written and read back as such."""

    impl = SqlDateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        """Refuse naive values and convert the others to UTC."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("an instant needs a time zone")
        return value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        """Return the instant in UTC."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


def choice(kind: type[StrEnum], length_max: int = CHOICE_LENGTH_MAX) -> Enum:
    """Make a text column that holds the values of an enumeration."""
    return Enum(
        kind,
        native_enum=False,
        length=length_max,
        values_callable=lambda members: [member.value for member in members],
    )


def json_column() -> JSON:
    """Make a JSON column in which absent means SQL NULL."""
    return JSON(none_as_null=True)


def same_organization(column: str, table: str) -> ForeignKeyConstraint:
    """Make `column` refer to a row of `table` that belongs to the same organization."""
    return ForeignKeyConstraint(
        ["organization_id", column], [f"{table}.organization_id", f"{table}.id"]
    )
