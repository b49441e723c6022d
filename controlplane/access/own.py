"""Access tokens that people make for themselves, and their revocation."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID, uuid5

from sqlalchemy import func

from controlplane.access.models import AccessToken
from controlplane.access.queries import is_usable, may_manage, own_tokens
from controlplane.access.service import insert_token
from controlplane.audit.service import facts, record
from controlplane.context import Work
from controlplane.errors import IdempotencyMismatch, InvalidInput, LimitExceeded, NotPermitted
from controlplane.inputs import checked_text
from controlplane.keys.idempotency import earlier_result, remember_result
from controlplane.keys.models import IDEMPOTENCY_KEY_LENGTH_MAX
from controlplane.scope import not_found
from controlplane.tenancy.models import NAME_LENGTH_MAX

# Usable ones; revoked and expired ones do not count.
ACCESS_TOKENS_MAX = 50


@dataclass(frozen=True, slots=True)
class CreatedToken:
    """A token, and its secret if this call made it; `replayed` when an earlier call did."""

    token: AccessToken
    secret: str | None
    replayed: bool


async def create_own_token(
    work: Work, *, name: str, expires_at: datetime | None, idempotency_key: str
) -> CreatedToken:
    """Make another token for the caller as it is here; its secret is returned this once.

    The new token may do what the caller may, and no longer than the token it came by. The same
    call with the same idempotency key returns the first token without its secret.

    Raises `InvalidInput`, `IdempotencyMismatch`, `LimitExceeded`, `NotPermitted`.
    """
    request = {"operation": "access_token.create", "name": name, "expires_at": expires_at}
    earlier = await _earlier(work, request, idempotency_key)
    if earlier is not None:
        return CreatedToken(earlier, None, replayed=True)
    await _refuse_longer_than_own(work, expires_at)
    await _refuse_too_many(work)
    membership, user_id = work.caller.membership, work.caller.user_id
    if user_id is None:
        raise NotPermitted("Only people have access tokens.")
    if membership is None:
        token_id = _operators_token_id(user_id, idempotency_key)
        token, secret = await insert_token(
            work, token_id, user_id, None, name=name, expires_at=expires_at
        )
        return CreatedToken(token, secret, replayed=False)
    place = (membership.organization_id, membership.member_id)
    token, secret = await insert_token(
        work, work.new_id(), user_id, place, name=name, expires_at=expires_at
    )
    await remember_result(work, place[0], idempotency_key, request, token.id)
    return CreatedToken(token, secret, replayed=False)


async def revoke_token(work: Work, token_id: UUID, *, reason: str | None = None) -> AccessToken:
    """Revoke a token for good; revoking it again changes nothing.

    Raises `InvalidInput`, and `NotFound` for one that the caller may not manage.
    """
    row = await work.session.get(AccessToken, token_id)
    if row is None or not may_manage(work.caller, row):
        raise not_found("access token")
    if reason is not None:
        reason = checked_text(reason, "reason", NAME_LENGTH_MAX)
    if row.revoked_at is not None:
        return row
    before = facts(row)
    row.revoked_at = work.now
    await work.session.flush()
    record(
        work,
        "access_token.revoke",
        row,
        organization_id=row.organization_id,
        before=before,
        after=facts(row),
        reason=reason,
    )
    return row


async def _earlier(work: Work, request: dict[str, Any], key: str) -> AccessToken | None:
    """Find what an earlier call made.

    An operator is in no organization whose idempotency keys could remember its calls: its tokens
    are named after them.
    """
    membership, user_id = work.caller.membership, work.caller.user_id
    if membership is not None:
        found = await earlier_result(work, membership.organization_id, key, request)
        return None if found is None else await work.session.get(AccessToken, found)
    if user_id is None or not work.caller.operator:
        raise NotPermitted("Only members and operators have access tokens.")
    row = await work.session.get(AccessToken, _operators_token_id(user_id, key))
    if row is not None and (row.name, row.expires_at) != (
        str(request["name"]).strip(),
        request["expires_at"],
    ):
        raise IdempotencyMismatch(
            "This idempotency key was used before with another input.", field=("idempotencyKey",)
        )
    return row


def _operators_token_id(user_id: UUID, key: str) -> UUID:
    checked = checked_text(key, "idempotencyKey", IDEMPOTENCY_KEY_LENGTH_MAX)
    return uuid5(user_id, f"access_token/{checked}")


async def _refuse_longer_than_own(work: Work, expires_at: datetime | None) -> None:
    """Refuse that a token which ends makes one that outlives it."""
    token_id = work.caller.token_id
    own = None if token_id is None else await work.session.get(AccessToken, token_id)
    if own is None or own.expires_at is None:
        return
    if expires_at is None or expires_at > own.expires_at:
        raise InvalidInput("A token cannot outlive the one that makes it.", field=("expiresAt",))


async def _refuse_too_many(work: Work) -> None:
    query = own_tokens(work.caller).where(is_usable(work.now))
    count = await work.session.scalar(query.with_only_columns(func.count()))
    if (count or 0) >= ACCESS_TOKENS_MAX:
        raise LimitExceeded(
            f"One has at most {ACCESS_TOKENS_MAX} usable tokens; revoke one first.",
            maximum=ACCESS_TOKENS_MAX,
        )
