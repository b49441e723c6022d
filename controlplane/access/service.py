"""Operators, access tokens, and whom a presented token stands for."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from uuid import UUID

from sqlalchemy import Select, select
from sqlalchemy.ext.asyncio import AsyncSession

from controlplane.access.models import AccessToken
from controlplane.audit.service import facts, record
from controlplane.authz import Caller, Membership
from controlplane.context import Work
from controlplane.errors import InvalidInput
from controlplane.inputs import checked_text
from controlplane.keys.secret import SecretKind, digest, kind_of, new_secret
from controlplane.scope import not_found
from controlplane.tenancy.models import NAME_LENGTH_MAX, Member, User
from controlplane.tenancy.service import create_user

# SQLite binds at most 32,766 parameters.
TOKENS_PER_QUERY_MAX = 10_000


async def create_operator(work: Work, *, email: str, name: str | None = None) -> User:
    """Create an operator of this installation.

    Raises `InvalidInput`, and `Conflict` when the address is known.
    """
    row = await create_user(work, email=email, name=name, operator=True)
    record(work, "operator.create", row, organization_id=None, after=facts(row))
    return row


async def create_access_token(
    work: Work, *, user: User, member: Member | None, name: str, expires_at: datetime | None = None
) -> str:
    """Create a token for a member, or without a member for an operator; returns it this once.

    Raises `InvalidInput` when the member is another user's, or none is given for a non-operator.
    """
    if (member is None) != user.operator or (member is not None and member.user_id != user.id):
        raise InvalidInput("A token belongs to an operator or to a member of that user.")
    place = None if member is None else (member.organization_id, member.id)
    _, secret = await insert_token(
        work, work.new_id(), user.id, place, name=name, expires_at=expires_at
    )
    return secret


async def insert_token(
    work: Work,
    token_id: UUID,
    user_id: UUID,
    place: tuple[UUID, UUID] | None,
    *,
    name: str,
    expires_at: datetime | None,
) -> tuple[AccessToken, str]:
    """Keep a new token of a member, `place` naming its organization and it, or of an operator.

    Raises `InvalidInput`.
    """
    if expires_at is not None and expires_at <= work.now:
        raise InvalidInput("Must be in the future.", field=("expiresAt",))
    secret = new_secret(SecretKind.ACCESS_TOKEN, work.installation.random_bytes)
    row = AccessToken(
        id=token_id,
        user_id=user_id,
        organization_id=None if place is None else place[0],
        member_id=None if place is None else place[1],
        name=checked_text(name, "name", NAME_LENGTH_MAX),
        digest=digest(secret, work.installation.pepper),
        last_four=secret[-4:],
        expires_at=expires_at,
        created_at=work.now,
    )
    work.session.add(row)
    await work.session.flush()
    record(work, "access_token.create", row, organization_id=row.organization_id, after=facts(row))
    return row, secret


async def caller_of(
    session: AsyncSession, secret: str, pepper: bytes, now: datetime
) -> Caller | None:
    """Find whom a token stands for; None when malformed, unknown, expired or revoked."""
    if kind_of(secret) is not SecretKind.ACCESS_TOKEN:
        return None
    query = _tokens().where(AccessToken.digest == digest(secret, pepper))
    found = (await session.execute(query)).one_or_none()
    return None if found is None else _caller(*found, now=now)


async def callers_of_tokens(
    session: AsyncSession, token_ids: Collection[UUID], now: datetime
) -> dict[UUID, Caller]:
    """Find whom tokens stand for now, by their ids; expired and revoked ones are left out."""
    found: dict[UUID, Caller] = {}
    ordered = sorted(token_ids)
    for start in range(0, len(ordered), TOKENS_PER_QUERY_MAX):
        part = ordered[start : start + TOKENS_PER_QUERY_MAX]
        for token, operator, member in await session.execute(
            _tokens().where(AccessToken.id.in_(part))
        ):
            caller = _caller(token, operator, member, now=now)
            if caller is not None:
                found[token.id] = caller
    return found


async def user_by_id(session: AsyncSession, user_id: UUID) -> User:
    """Load a user.

    Raises `NotFound`.
    """
    row = await session.get(User, user_id)
    if row is None:
        raise not_found("user")
    return row


def _tokens() -> Select[AccessToken, bool, Member]:
    return (
        select(AccessToken, User.operator, Member)
        .join(User, User.id == AccessToken.user_id)
        .outerjoin(Member, Member.id == AccessToken.member_id)
    )


def _caller(
    token: AccessToken,
    operator: bool,  # noqa: FBT001 - a column of the row
    member: Member | None,
    *,
    now: datetime,
) -> Caller | None:
    is_over = token.expires_at is not None and token.expires_at <= now
    if is_over or token.revoked_at is not None:
        return None
    membership = _membership_of(member)
    return Caller(token.user_id, operator=operator, membership=membership, token_id=token.id)


def _membership_of(member: Member | None) -> Membership | None:
    if member is None:
        return None
    return Membership(member.organization_id, member.id, member.role, member.team_id)
