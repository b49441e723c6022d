"""Reads of pools."""

from __future__ import annotations

from collections.abc import Iterable
from uuid import UUID

from sqlalchemy import Select, false, true
from sqlalchemy.ext.asyncio import AsyncSession

from controlplane.authz import Action, Caller, Reach
from controlplane.pools.models import Pool
from controlplane.scope import get_owned, owned


async def pool_by_id(session: AsyncSession, organization_id: UUID, pool_id: UUID) -> Pool:
    """Load a pool of an organization, archived or not.

    Raises `NotFound`.
    """
    return await get_owned(session, Pool, organization_id, pool_id, "pool")


async def pools_by_ids(
    session: AsyncSession, organization_id: UUID, pool_ids: Iterable[UUID]
) -> dict[UUID, Pool]:
    """Load pools of an organization; one that there is not is not among them."""
    query = owned(Pool, organization_id).where(Pool.id.in_(set(pool_ids)))
    return {row.id: row for row in await session.scalars(query)}


def visible_pools(caller: Caller, organization_id: UUID) -> Select[Pool]:
    """Select the pools of an organization: all for everybody who may see anything in it."""
    is_inside = caller.reach(Action.STRUCTURE_READ, organization_id) is not Reach.NONE
    return owned(Pool, organization_id).where(true() if is_inside else false())
