"""A new secret for a key, while the old ones still work for a while."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from controlplane.audit.service import facts, record
from controlplane.context import Work
from controlplane.inputs import checked_number
from controlplane.keys import queries
from controlplane.keys.idempotency import earlier_result, remember_result
from controlplane.keys.models import KeySecret, VirtualKey
from controlplane.keys.secret import SecretKind, new_secret
from controlplane.keys.service import (
    SHOWN_DIGITS,
    CreatedKey,
    check_seen,
    insert_secret,
    key_to_change,
    refuse_revoked,
)
from controlplane.tenancy.service import key_changed

GRACE_S_MAX = 30 * 86_400
# Older secrets that may work beside the newest one, however often a key is rotated.
OLDER_SECRETS_MAX = 2


async def rotate_key(
    work: Work,
    organization_id: UUID,
    key_id: UUID,
    *,
    grace_s: int,
    idempotency_key: str,
    expected_version: int | None = None,
) -> CreatedKey:
    """Give a key a new secret, returned this once; older ones work `grace_s` seconds more at most.

    A grace of 0 ends them at once. None is made to work longer than it would have, and of several
    only the newest two go on. The same call with the same idempotency key returns the key without
    the secret.

    Raises `InvalidInput`, `Conflict` for a revoked key, `IdempotencyMismatch`, `StaleVersion`,
    `NotFound`, `NotPermitted`.
    """
    key = await key_to_change(work, organization_id, key_id)
    request = _request(key_id, grace_s, expected_version)
    if await earlier_result(work, organization_id, idempotency_key, request) is not None:
        return CreatedKey(key, None, replayed=True)
    checked_number(grace_s, "graceSeconds", 0, GRACE_S_MAX)
    refuse_revoked(key)
    check_seen(key, expected_version)
    before = facts(key)
    await _end_older(work, key, work.now + timedelta(seconds=grace_s))
    secret = await _give_secret(work, key)
    await remember_result(work, organization_id, idempotency_key, request, key.id)
    after = {**facts(key), "grace_seconds": grace_s}
    record(work, "key.rotate", key, organization_id=organization_id, before=before, after=after)
    await key_changed(work, organization_id, key.id, policy=False)
    return CreatedKey(key, secret, replayed=False)


def _request(key_id: UUID, grace_s: int, expected_version: int | None) -> dict[str, Any]:
    return {
        "operation": "key.rotate",
        "key_id": key_id,
        "grace_s": grace_s,
        "expected_version": expected_version,
    }


async def _end_older(work: Work, key: VirtualKey, ends_at: datetime) -> None:
    """Let the newest older secrets end at an instant or before, and forget those that are over."""
    newest_first = await queries.secrets_of(work.session, key.organization_id, key.id)
    kept = 0
    for secret in newest_first:
        if secret.expires_at is None or secret.expires_at > ends_at:
            secret.expires_at = ends_at
        if kept == OLDER_SECRETS_MAX or secret.expires_at <= work.now:
            await work.session.delete(secret)
        else:
            kept += 1
    await work.session.flush()


async def _give_secret(work: Work, key: VirtualKey) -> str:
    kind = next(each for each in SecretKind if key.prefix.startswith(each.value))
    secret = new_secret(kind, work.installation.random_bytes)
    key.prefix = secret[: len(kind.value) + SHOWN_DIGITS]
    key.last_four = secret[-4:]
    await insert_secret(work, key, secret)
    return secret


def previous_ends_at(secrets: list[KeySecret], now: datetime) -> datetime | None:
    """Tell when the last older secret ends, of secrets newest first; None when none works."""
    ends = [each.expires_at for each in secrets[1:] if each.expires_at is not None]
    return max((each for each in ends if each > now), default=None)


def rotated_at(secrets: list[KeySecret], key: VirtualKey) -> datetime | None:
    """Tell when a key got its newest secret, of secrets newest first; None: it is its first."""
    if not secrets or secrets[0].created_at == key.created_at:
        return None
    return secrets[0].created_at
