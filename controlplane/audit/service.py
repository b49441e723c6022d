"""Writes administrative events in the transaction of the change they describe."""

from __future__ import annotations

from datetime import date
from enum import StrEnum
from typing import Any
from uuid import UUID

from controlplane.audit.models import AdminEvent
from controlplane.columns import Json
from controlplane.context import Work
from controlplane.db import Row

# Never in a record: what proves identity, and what changes without a person's doing.
_LEFT_OUT = frozenset({"digest", "organization_id"})


def facts(row: Row) -> Json:
    """List the column values of a row as JSON values."""
    columns = [each.key for each in row.__mapper__.column_attrs if each.key not in _LEFT_OUT]
    return {name: _json_value(getattr(row, name)) for name in columns}


def record(
    work: Work,
    action: str,
    target: Row,
    *,
    organization_id: UUID | None,
    before: Json | None = None,
    after: Json | None = None,
    reason: str | None = None,
) -> None:
    """Put one administrative act on record, with the values before and after it.

    A reason that was given stands beside the values after it.
    """
    if reason is not None:
        after = {**(after or {}), "reason": reason}
    row = AdminEvent(
        id=work.new_id(),
        organization_id=organization_id,
        actor_kind=work.caller.kind,
        actor_id=work.caller.user_id,
        action=action,
        target_kind=target.__tablename__,
        target_id=target.__mapper__.primary_key_from_instance(target)[0],
        before=before,
        after=after,
        at=work.now,
    )
    work.session.add(row)


def _json_value(value: Any) -> Any:
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, StrEnum):
        return value.value
    return str(value) if isinstance(value, UUID) else value
