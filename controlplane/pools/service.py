"""Changes to pools; each flushes and puts itself on record."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from sqlalchemy import func

from controlplane.audit.service import facts, record
from controlplane.authz import Action, Target, require
from controlplane.columns import Json
from controlplane.context import Work
from controlplane.errors import Conflict, InvalidInput, LimitExceeded
from controlplane.inputs import checked_text
from controlplane.keys.idempotency import first_result, remember_result
from controlplane.pools.models import (
    POOL_NAME_LENGTH_MAX,
    POOLS_MAX,
    POOLS_PER_KEY_MAX,
    Pool,
)
from controlplane.pools.queries import pool_by_id, pools_by_ids
from controlplane.scope import not_found, owned, subject_of
from controlplane.tenancy.queries import organization_by_id
from controlplane.versions import check_version


async def create_pool(
    work: Work, organization_id: UUID, *, name: str, idempotency_key: str | None = None
) -> Pool:
    """Create a pool; its name is its own, also among archived ones.

    The same call with the same idempotency key returns the first pool.

    Raises `InvalidInput`, `Conflict` when the name is taken, `IdempotencyMismatch`,
    `LimitExceeded`, `NotFound`, `NotPermitted`.
    """
    require(work.caller, Action.POOLS_WRITE, Target(organization_id), "organization")
    await organization_by_id(work.session, organization_id)
    request = {"operation": "pool.create", "name": name}
    earlier_id = await first_result(work, organization_id, idempotency_key, request)
    if earlier_id is not None:
        return await pool_by_id(work.session, organization_id, earlier_id)
    row = Pool(
        id=work.new_id(),
        organization_id=organization_id,
        name=checked_text(name, "name", POOL_NAME_LENGTH_MAX),
        created_at=work.now,
    )
    await _refuse_taken(work, organization_id, row.name)
    await _refuse_too_many(work, organization_id)
    work.session.add(row)
    await work.session.flush()
    await remember_result(work, organization_id, idempotency_key, request, row.id)
    record(work, "pool.create", row, organization_id=organization_id, after=facts(row))
    return row


async def rename_pool(
    work: Work, organization_id: UUID, pool_id: UUID, *, name: str, expected_version: int
) -> Pool:
    """Give a pool another name, archived or not.

    Raises `InvalidInput`, `Conflict` when the name is taken, `StaleVersion`, `NotFound`,
    `NotPermitted`.
    """
    row = await _to_change(work, organization_id, pool_id)
    check_version(row.version, expected_version, subject_of(row))
    checked = checked_text(name, "name", POOL_NAME_LENGTH_MAX)
    if checked != row.name:
        await _refuse_taken(work, organization_id, checked)
    before = facts(row)
    row.name = checked
    await _put(work, row, "pool.update", before)
    return row


async def archive_pool(
    work: Work, organization_id: UUID, pool_id: UUID, *, expected_version: int
) -> Pool:
    """Archive a pool: no further key gets it; its limits go on to bind the keys that have it.

    Archiving it again changes nothing.

    Raises `StaleVersion`, `NotFound`, `NotPermitted`.
    """
    row = await _to_change(work, organization_id, pool_id)
    if row.archived_at is not None:
        return row
    check_version(row.version, expected_version, subject_of(row))
    before = facts(row)
    row.archived_at = work.now
    await _put(work, row, "pool.archive", before)
    return row


async def checked_pools(
    work: Work, organization_id: UUID, pool_ids: Sequence[UUID], known: Sequence[str] | None
) -> list[str] | None:
    """Accept the pools that a key shall draw on, as the key keeps them; None for none.

    Whoever may change them changes what binds the key and what others have left: the
    organization's admins.

    Raises `InvalidInput`, `Conflict` for a further archived one, `NotFound`, `NotPermitted`.
    """
    wanted = sorted({str(each) for each in pool_ids}) or None
    if wanted == known:
        return wanted
    require(work.caller, Action.POOLS_WRITE, Target(organization_id), "pool")
    if len(pool_ids) > POOLS_PER_KEY_MAX:
        raise InvalidInput(f"At most {POOLS_PER_KEY_MAX} pools.", field=("poolIds",))
    found = await pools_by_ids(work.session, organization_id, pool_ids)
    if any(each not in found for each in pool_ids):
        raise not_found("pool")
    for pool in found.values():
        if pool.archived_at is not None and str(pool.id) not in (known or ()):
            raise Conflict("An archived pool is given to nothing new.", field=("poolIds",))
    return wanted


async def _to_change(work: Work, organization_id: UUID, pool_id: UUID) -> Pool:
    row = await pool_by_id(work.session, organization_id, pool_id)
    require(work.caller, Action.POOLS_WRITE, Target(organization_id), "pool")
    return row


async def _put(work: Work, row: Pool, action: str, before: Json) -> None:
    if not work.session.is_modified(row):
        return
    await work.session.flush()
    after = facts(row)
    record(work, action, row, organization_id=row.organization_id, before=before, after=after)


async def _refuse_taken(work: Work, organization_id: UUID, name: str) -> None:
    query = owned(Pool, organization_id).where(Pool.name == name)
    if await work.session.scalar(query) is not None:
        raise Conflict(f"The name {name} is taken.", field=("name",))


async def _refuse_too_many(work: Work, organization_id: UUID) -> None:
    count = owned(Pool, organization_id).with_only_columns(func.count())
    if (await work.session.scalar(count) or 0) >= POOLS_MAX:
        raise LimitExceeded(f"An organization has at most {POOLS_MAX} pools.", maximum=POOLS_MAX)
