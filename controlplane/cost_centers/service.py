"""Changes to cost centers; each flushes and puts itself on record.

Nothing here reaches the proxy: a request is attributed by id, and neither name nor archiving
changes which id that is.
"""

from __future__ import annotations

from typing import TypedDict
from uuid import UUID

from sqlalchemy import func

from controlplane.audit.service import facts, record
from controlplane.authz import Action, Target, require
from controlplane.columns import Json
from controlplane.context import Work
from controlplane.errors import Conflict, LimitExceeded
from controlplane.inputs import checked_text
from controlplane.keys.idempotency import first_result, remember_result
from controlplane.scope import owned, subject_of
from controlplane.tenancy.models import (
    COST_CENTER_CODE_LENGTH_MAX,
    COST_CENTERS_MAX,
    NAME_LENGTH_MAX,
    CostCenter,
)
from controlplane.tenancy.queries import cost_center_by_id, organization_by_id
from controlplane.versions import check_version


class CostCenterChanges(TypedDict, total=False):
    """What shall change of a cost center; what is left out stays."""

    code: str
    name: str


async def create_cost_center(
    work: Work,
    organization_id: UUID,
    *,
    code: str,
    name: str,
    idempotency_key: str | None = None,
) -> CostCenter:
    """Create a cost center; its code is its own, also among archived ones.

    The same call with the same idempotency key returns the first cost center.

    Raises `InvalidInput`, `Conflict` when the code is taken, `IdempotencyMismatch`,
    `LimitExceeded`, `NotFound`, `NotPermitted`.
    """
    require(work.caller, Action.COST_CENTERS_WRITE, Target(organization_id), "organization")
    await organization_by_id(work.session, organization_id)
    request = {"operation": "cost_center.create", "code": code, "name": name}
    earlier_id = await first_result(work, organization_id, idempotency_key, request)
    if earlier_id is not None:
        return await cost_center_by_id(work.session, organization_id, earlier_id)
    row = CostCenter(
        id=work.new_id(),
        organization_id=organization_id,
        code=checked_text(code, "code", COST_CENTER_CODE_LENGTH_MAX),
        name=checked_text(name, "name", NAME_LENGTH_MAX),
        created_at=work.now,
    )
    await _refuse_taken(work, organization_id, row.code)
    await _refuse_too_many(work, organization_id)
    work.session.add(row)
    await work.session.flush()
    await remember_result(work, organization_id, idempotency_key, request, row.id)
    record(work, "cost_center.create", row, organization_id=organization_id, after=facts(row))
    return row


async def update_cost_center(
    work: Work,
    organization_id: UUID,
    cost_center_id: UUID,
    changes: CostCenterChanges,
    *,
    expected_version: int,
) -> CostCenter:
    """Give a cost center another code or name, archived or not.

    Raises `InvalidInput`, `Conflict` when the code is taken, `StaleVersion`, `NotFound`,
    `NotPermitted`.
    """
    row = await _to_change(work, organization_id, cost_center_id)
    check_version(row.version, expected_version, subject_of(row))
    code = checked_text(changes.get("code", row.code), "code", COST_CENTER_CODE_LENGTH_MAX)
    name = checked_text(changes.get("name", row.name), "name", NAME_LENGTH_MAX)
    if code != row.code:
        await _refuse_taken(work, organization_id, code)
    before = facts(row)
    row.code, row.name = code, name
    await _put(work, row, "cost_center.update", before)
    return row


async def archive_cost_center(
    work: Work,
    organization_id: UUID,
    cost_center_id: UUID,
    *,
    expected_version: int,
    reason: str | None = None,
) -> CostCenter:
    """Archive a cost center; archiving it again changes nothing.

    It can be given to nothing new. Teams, members and keys that have it keep it.

    Raises `InvalidInput`, `StaleVersion`, `NotFound`, `NotPermitted`.
    """
    row = await _to_change(work, organization_id, cost_center_id)
    if reason is not None:
        reason = checked_text(reason, "reason", NAME_LENGTH_MAX)
    if row.archived_at is not None:
        return row
    check_version(row.version, expected_version, subject_of(row))
    before = facts(row)
    row.archived_at = work.now
    await _put(work, row, "cost_center.archive", before, reason)
    return row


async def _to_change(work: Work, organization_id: UUID, cost_center_id: UUID) -> CostCenter:
    row = await cost_center_by_id(work.session, organization_id, cost_center_id)
    require(work.caller, Action.COST_CENTERS_WRITE, Target(organization_id), "cost center")
    return row


async def _put(
    work: Work, row: CostCenter, action: str, before: Json, reason: str | None = None
) -> None:
    if not work.session.is_modified(row):
        return
    await work.session.flush()
    record(
        work,
        action,
        row,
        organization_id=row.organization_id,
        before=before,
        after=facts(row),
        reason=reason,
    )


async def _refuse_taken(work: Work, organization_id: UUID, code: str) -> None:
    query = owned(CostCenter, organization_id).where(CostCenter.code == code)
    if await work.session.scalar(query) is not None:
        raise Conflict(f"The code {code} is taken.", field=("code",))


async def _refuse_too_many(work: Work, organization_id: UUID) -> None:
    count = owned(CostCenter, organization_id).with_only_columns(func.count())
    if (await work.session.scalar(count) or 0) >= COST_CENTERS_MAX:
        raise LimitExceeded(
            f"An organization has at most {COST_CENTERS_MAX} cost centers.",
            maximum=COST_CENTERS_MAX,
        )
