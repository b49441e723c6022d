"""Access tokens in the API."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

import strawberry
from sqlalchemy import Select

from controlplane.access import models, own
from controlplane.access.queries import tokens_of_members
from controlplane.api.connections import (
    Connection,
    connection_of,
    page_by_id,
    page_of_children,
)
from controlplane.api.faults import UserError, attempt
from controlplane.api.fields import mutation
from controlplane.api.nodes import Node, NodeKind, expect, global_id
from controlplane.api.request import Info
from controlplane.context import Work
from controlplane.tenancy.models import Member

# Stands in the global id of an operator's token.
NO_ORGANIZATION = UUID(int=0)


@strawberry.type(description="What a person or program authenticates with here.")
class AccessToken(Node):
    """What a person or program authenticates with."""

    name: str = strawberry.field(description="Name for people.")
    last_four: str = strawberry.field(
        description="How its secret ends; the secret itself is never readable again."
    )
    created_at: datetime = strawberry.field(description="When it was created.")
    expires_at: datetime | None = strawberry.field(description="From when on it works no more.")
    revoked_at: datetime | None = strawberry.field(description="Since when it is revoked.")


def access_token_of(row: models.AccessToken) -> AccessToken:
    """Show a token."""
    return AccessToken(
        id=global_id(NodeKind.ACCESS_TOKEN, row.organization_id or NO_ORGANIZATION, row.id),
        name=row.name,
        last_four=row.last_four,
        created_at=row.created_at,
        expires_at=row.expires_at,
        revoked_at=row.revoked_at,
    )


async def page_of_tokens(
    info: Info, query: Select[models.AccessToken], first: int, after: str | None
) -> Connection[AccessToken]:
    """Read a page of tokens."""
    async with info.context.backend.database.read() as session:
        rows, has_next = await page_by_id(
            session, query, models.AccessToken.id, first=first, after=after
        )
    return connection_of(rows, access_token_of, lambda row: row.id, has_next=has_next, after=after)


async def tokens_of_member(
    info: Info, member: Member, first: int, after: str | None
) -> Connection[AccessToken]:
    """Read a page of the tokens that stand for a member."""
    rows, has_next = await page_of_children(
        info,
        ("Member.accessTokens", member.organization_id),
        tokens_of_members(member.organization_id),
        models.AccessToken.id,
        models.AccessToken.member_id,
        member.id,
        first=first,
        after=after,
    )
    return connection_of(rows, access_token_of, lambda row: row.id, has_next=has_next, after=after)


@strawberry.input(description="A token to create for yourself.")
class AccessTokenCreateInput:
    """A token to create for oneself."""

    name: str = strawberry.field(description="Name for people, up to 200 characters.")
    idempotency_key: str = strawberry.field(
        description="A retry with the same value returns the first token, its secret null."
    )
    expires_at: datetime | None = strawberry.field(
        default=None,
        description="From when on it works no more; not after the token you are using ends.",
    )


@strawberry.type(description="A token and its secret, or why there is none.")
class AccessTokenSecretPayload:
    """A token and its secret."""

    access_token: AccessToken | None = strawberry.field(
        description="The token; null when there are errors."
    )
    secret: str | None = strawberry.field(
        description="The secret, in the first successful answer and never again."
    )
    replayed: bool = strawberry.field(
        description="Whether an earlier call with this idempotency key made the token."
    )
    errors: list[UserError] = strawberry.field(description="What you can mend.")


@strawberry.input(description="A token to revoke.")
class AccessTokenRevokeInput:
    """A token to revoke."""

    access_token_id: strawberry.ID = strawberry.field(description="The token.")
    reason: str | None = strawberry.field(default=None, description="Why, for the record.")


@strawberry.type(description="The revoked token, or why nothing was changed.")
class AccessTokenPayload:
    """The revoked token, or why nothing was changed."""

    access_token: AccessToken | None = strawberry.field(
        description="The token; null when there are errors."
    )
    errors: list[UserError] = strawberry.field(description="What you can mend.")


@strawberry.type
class AccessMutation:
    """Changes to access tokens."""

    @mutation("Create a token that may do what you may; its secret is shown this once.")
    async def access_token_create(
        self,
        info: Info,
        input: AccessTokenCreateInput,  # noqa: A002
    ) -> AccessTokenSecretPayload:
        """Create a token for the caller."""

        async def change(work: Work) -> own.CreatedToken:
            return await own.create_own_token(
                work,
                name=input.name,
                expires_at=input.expires_at,
                idempotency_key=input.idempotency_key,
            )

        created, errors = await attempt(info, change)
        return AccessTokenSecretPayload(
            access_token=None if created is None else access_token_of(created.token),
            secret=None if created is None else created.secret,
            replayed=created is not None and created.replayed,
            errors=errors,
        )

    @mutation(
        "Revoke a token for good: your own, or as an admin one of your organization's people."
    )
    async def access_token_revoke(
        self,
        info: Info,
        input: AccessTokenRevokeInput,  # noqa: A002
    ) -> AccessTokenPayload:
        """Revoke a token."""

        async def change(work: Work) -> models.AccessToken:
            name = expect(input.access_token_id, NodeKind.ACCESS_TOKEN, "access token")
            return await own.revoke_token(work, name.id, reason=input.reason)

        row, errors = await attempt(info, change)
        return AccessTokenPayload(
            access_token=None if row is None else access_token_of(row), errors=errors
        )
