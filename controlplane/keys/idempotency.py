"""Idempotency keys: the same call twice has one effect."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from controlplane.canonical import canonical_hash
from controlplane.context import Work
from controlplane.errors import IdempotencyMismatch
from controlplane.inputs import checked_text
from controlplane.keys.models import IDEMPOTENCY_KEY_LENGTH_MAX, IdempotencyKey
from controlplane.scope import owned


async def earlier_result(
    work: Work, organization_id: UUID, key: str, request: dict[str, Any]
) -> UUID | None:
    """Find what an earlier call of this caller with this key made; None for a first call.

    Raises `InvalidInput` for an unusable key, `IdempotencyMismatch` when the earlier call asked
    for something else.
    """
    checked = checked_text(key, "idempotencyKey", IDEMPOTENCY_KEY_LENGTH_MAX)
    row = await work.session.scalar(
        owned(IdempotencyKey, organization_id).where(
            IdempotencyKey.caller == _caller_name(work), IdempotencyKey.key == checked
        )
    )
    if row is None:
        return None
    if row.fingerprint != canonical_hash(request):
        raise IdempotencyMismatch(
            "This idempotency key was used before with another input.", field=("idempotencyKey",)
        )
    return row.result_id


async def first_result(
    work: Work, organization_id: UUID, key: str | None, request: dict[str, Any]
) -> UUID | None:
    """Find what an earlier call made where an idempotency key may be left out.

    Raises as `earlier_result`.
    """
    return None if key is None else await earlier_result(work, organization_id, key, request)


async def remember_result(
    work: Work, organization_id: UUID, key: str | None, request: dict[str, Any], result_id: UUID
) -> None:
    """Keep what a first call made, in its transaction, if it had an idempotency key."""
    if key is None:
        return
    row = IdempotencyKey(
        id=work.new_id(),
        organization_id=organization_id,
        caller=_caller_name(work),
        key=key.strip(),
        fingerprint=canonical_hash(request),
        result_id=result_id,
        created_at=work.now,
    )
    work.session.add(row)
    await work.session.flush()


def _caller_name(work: Work) -> str:
    return f"{work.caller.kind}:{work.caller.user_id or ''}"
