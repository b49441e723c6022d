"""Pools in the API."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

import strawberry

from controlplane.api.faults import UserError, attempt
from controlplane.api.fields import mutation, resolved
from controlplane.api.nodes import Node, NodeKind, expect, expect_in, global_id
from controlplane.api.request import Info
from controlplane.authz import Action, Target, may
from controlplane.context import Work
from controlplane.limits.graphql import Budget, budgets_of
from controlplane.limits.models import ScopeKind
from controlplane.limits.subjects import Scope
from controlplane.pools import models, service


@strawberry.type(description="What several keys draw on: each request counts in full in each pool.")
class Pool(Node):
    """What several keys draw on."""

    name: str = strawberry.field(description="Name for people, unique in the organization.")
    created_at: datetime = strawberry.field(description="When it was created.")
    archived_at: datetime | None = strawberry.field(
        description="Since when no further key gets it; keys that have it keep it."
    )
    version: int = strawberry.field(description="Counts changes; see `expectedVersion`.")
    row: strawberry.Private[models.Pool]

    @resolved("Its budgets, if you may see them.")
    async def budgets(self, info: Info) -> list[Budget]:
        """List budgets."""
        place = self.row.organization_id
        if not may(info.context.caller, Action.STRUCTURE_READ, Target(place)):
            return []
        return await budgets_of(info, place, Scope(ScopeKind.POOL, self.row.id))


@strawberry.input(description="A pool to create.")
class PoolCreateInput:
    """A pool to create."""

    organization_id: strawberry.ID = strawberry.field(description="In which organization.")
    name: str = strawberry.field(description="Name for people, up to 200 characters, its own.")
    idempotency_key: str | None = strawberry.field(
        default=None, description="A retry with the same value returns the first pool."
    )


@strawberry.input(description="A pool to rename.")
class PoolUpdateInput:
    """A pool to rename."""

    pool_id: strawberry.ID = strawberry.field(description="The pool.")
    name: str = strawberry.field(description="Name for people, up to 200 characters, its own.")
    expected_version: int = strawberry.field(description="The version you have seen.")


@strawberry.input(description="A pool to archive.")
class PoolArchiveInput:
    """A pool to archive."""

    pool_id: strawberry.ID = strawberry.field(description="The pool.")
    expected_version: int = strawberry.field(description="The version you have seen.")


@strawberry.type(description="The pool, or why nothing was changed.")
class PoolPayload:
    """The pool, or why nothing was changed."""

    pool: Pool | None = strawberry.field(description="The pool; null when there are errors.")
    errors: list[UserError] = strawberry.field(description="What you can mend.")


@strawberry.type
class PoolMutation:
    """Changes to pools."""

    @mutation("Create a pool. For admins.")
    async def pool_create(self, info: Info, input: PoolCreateInput) -> PoolPayload:  # noqa: A002
        """Create a pool."""

        async def change(work: Work) -> models.Pool:
            place = expect(input.organization_id, NodeKind.ORGANIZATION, "organization")
            return await service.create_pool(
                work, place.id, name=input.name, idempotency_key=input.idempotency_key
            )

        return _payload(*await attempt(info, change))

    @mutation("Give a pool another name. For admins.")
    async def pool_update(self, info: Info, input: PoolUpdateInput) -> PoolPayload:  # noqa: A002
        """Rename a pool."""

        async def change(work: Work) -> models.Pool:
            pool = expect(input.pool_id, NodeKind.POOL, "pool")
            return await service.rename_pool(
                work,
                pool.organization_id,
                pool.id,
                name=input.name,
                expected_version=input.expected_version,
            )

        return _payload(*await attempt(info, change))

    @mutation("Archive a pool: no further key gets it, those that have it keep it. For admins.")
    async def pool_archive(self, info: Info, input: PoolArchiveInput) -> PoolPayload:  # noqa: A002
        """Archive a pool."""

        async def change(work: Work) -> models.Pool:
            pool = expect(input.pool_id, NodeKind.POOL, "pool")
            return await service.archive_pool(
                work, pool.organization_id, pool.id, expected_version=input.expected_version
            )

        return _payload(*await attempt(info, change))


def pool_of(row: models.Pool) -> Pool:
    """Show a pool."""
    return Pool(
        id=global_id(NodeKind.POOL, row.organization_id, row.id),
        name=row.name,
        created_at=row.created_at,
        archived_at=row.archived_at,
        version=row.version,
        row=row,
    )


async def load_pools(
    info: Info, organization_id: UUID, pool_ids: Sequence[str] | None
) -> list[Pool]:
    """Load the pools a key draws on, by name."""
    pools = info.context.loaders.pools
    names = [(organization_id, UUID(each)) for each in pool_ids or ()]
    found = await asyncio.gather(*(pools.load(each) for each in names))
    return sorted((pool_of(row) for row in found if row is not None), key=lambda pool: pool.name)


def pools_in(texts: Sequence[str] | None, organization_id: UUID) -> tuple[UUID, ...]:
    """Read global ids of pools of this organization.

    Raises `NotFound`.
    """
    read = (expect_in(each, NodeKind.POOL, "pool", organization_id) for each in texts or ())
    return tuple(each for each in read if each is not None)


def _payload(row: models.Pool | None, errors: list[UserError]) -> PoolPayload:
    return PoolPayload(pool=None if row is None else pool_of(row), errors=errors)
