"""Operators, access tokens, and whom a presented token stands for."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from sqlalchemy import select
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
    if expires_at is not None and expires_at <= work.now:
        raise InvalidInput("Must be in the future.", field=("expiresAt",))
    secret = new_secret(SecretKind.ACCESS_TOKEN, work.installation.random_bytes)
    row = AccessToken(
        id=work.new_id(),
        user_id=user.id,
        organization_id=None if member is None else member.organization_id,
        member_id=None if member is None else member.id,
        name=checked_text(name, "name", NAME_LENGTH_MAX),
        digest=digest(secret, work.installation.pepper),
        last_four=secret[-4:],
        expires_at=expires_at,
        created_at=work.now,
    )
    work.session.add(row)
    await work.session.flush()
    record(work, "access_token.create", row, organization_id=row.organization_id, after=facts(row))
    return secret


async def caller_of(
    session: AsyncSession, secret: str, pepper: bytes, now: datetime
) -> Caller | None:
    """Find whom a token stands for; None when malformed, unknown, expired or revoked."""
    if kind_of(secret) is not SecretKind.ACCESS_TOKEN:
        return None
    query = (
        select(AccessToken, User.operator, Member)
        .join(User, User.id == AccessToken.user_id)
        .outerjoin(Member, Member.id == AccessToken.member_id)
        .where(AccessToken.digest == digest(secret, pepper))
    )
    found = (await session.execute(query)).one_or_none()
    if found is None:
        return None
    token, operator, member = found
    is_over = token.expires_at is not None and token.expires_at <= now
    if is_over or token.revoked_at is not None:
        return None
    return Caller(
        token.user_id, operator=operator, membership=_membership_of(member), token_id=token.id
    )


async def user_by_id(session: AsyncSession, user_id: UUID) -> User:
    """Load a user.

    Raises `NotFound`.
    """
    row = await session.get(User, user_id)
    if row is None:
        raise not_found("user")
    return row


def _membership_of(member: Member | None) -> Membership | None:
    if member is None:
        return None
    return Membership(member.organization_id, member.id, member.role, member.team_id)
