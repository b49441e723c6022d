"""Reads of what was reset by hand."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from controlplane.breakers.models import BreakerOffset
from controlplane.limits.nesting import BREAKER_WINDOWS_S, breaker_id
from controlplane.limits.subjects import Scope
from controlplane.scope import owned

# What is not held against a window, in nano units, and until when.
Offset = tuple[int, int]


async def offset_of(
    session: AsyncSession, organization_id: UUID, scope: Scope
) -> BreakerOffset | None:
    """Find what the breaker of a scope was reset by."""
    return await session.scalar(
        owned(BreakerOffset, organization_id).where(
            BreakerOffset.scope_kind == scope.kind, BreakerOffset.scope_id == scope.id
        )
    )


async def offsets_of(
    session: AsyncSession, organization_id: UUID, scopes: Sequence[Scope]
) -> dict[Scope, BreakerOffset]:
    """Load what the breakers of many scopes were reset by."""
    query = owned(BreakerOffset, organization_id).where(
        BreakerOffset.scope_id.in_({each.id for each in scopes})
    )
    found, wanted = await session.scalars(query), set(scopes)
    by_scope = {Scope(row.scope_kind, row.scope_id): row for row in found}
    return {scope: row for scope, row in by_scope.items() if scope in wanted}


async def window_offsets(session: AsyncSession, organization_id: UUID) -> dict[UUID, Offset]:
    """List the offsets of an organization by the id of the breaker's window, ended ones included.

    What ended is still told, so that equal policies do not differ by when they are read.
    """
    rows = await session.scalars(owned(BreakerOffset, organization_id))
    return {
        breaker_id(row.scope_kind, row.scope_id, seconds): row.of_window(seconds)
        for row in rows
        for seconds in BREAKER_WINDOWS_S
    }
