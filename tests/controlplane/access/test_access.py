"""Access tokens: they stand for one member or an operator until they expire."""

from __future__ import annotations

from datetime import timedelta

import pytest
from sqlalchemy import func, select

from controlplane.access.models import AccessToken
from controlplane.access.service import (
    caller_of,
    create_access_token,
    create_operator,
    user_by_id,
)
from controlplane.authz import SYSTEM
from controlplane.errors import InvalidInput
from controlplane.keys.secret import SecretKind, new_secret
from controlplane.tenancy.queries import member_by_id


async def token_for(work, org, caller, **more) -> str:
    user = await user_by_id(work.session, caller.user_id)
    member = await member_by_id(work.session, org.id, caller.membership.member_id)
    return await create_access_token(work, user=user, member=member, name="laptop", **more)


async def identify(database, installation, secret):
    async with database.read() as session:
        return await caller_of(session, secret, installation.pepper, installation.now())


async def test_a_token_stands_for_its_member(work_as, org, database, installation) -> None:
    async with work_as(SYSTEM) as work:
        secret = await token_for(work, org, org.team_admin)
    caller = await identify(database, installation, secret)
    assert caller == org.team_admin
    async with database.read() as session:
        assert caller.token_id == await session.scalar(select(AccessToken.id))


async def test_an_operators_token_has_no_membership(work_as, database, installation) -> None:
    async with work_as(SYSTEM) as work:
        operator = await create_operator(work, email="Root@Example.org")
        secret = await create_access_token(work, user=operator, member=None, name="root")
    caller = await identify(database, installation, secret)
    assert (caller.kind, caller.user_id, caller.membership) == ("operator", operator.id, None)
    assert operator.email == "root@example.org"


async def test_a_token_ends_at_its_instant(work_as, org, database, installation, clock) -> None:
    async with work_as(SYSTEM) as work:
        expires_at = work.now + timedelta(seconds=1)
        secret = await token_for(work, org, org.member, expires_at=expires_at)
    clock.advance_ns(999_999_000)
    assert await identify(database, installation, secret) == org.member
    clock.advance_ns(1_000)
    assert await identify(database, installation, secret) is None


async def test_unknown_and_foreign_secrets_stand_for_nobody(database, installation) -> None:
    for secret in (
        "",
        "cpat_",
        new_secret(SecretKind.ACCESS_TOKEN),
        new_secret(SecretKind.LIVE_KEY),
    ):
        assert await identify(database, installation, secret) is None


async def test_a_token_is_only_given_to_whom_it_belongs(work_as, org, database) -> None:
    async with database.read() as session:
        user = await user_by_id(session, org.admin.user_id)
        other = await member_by_id(session, org.id, org.member.membership.member_id)
    for member in (other, None):
        with pytest.raises(InvalidInput):
            async with work_as(SYSTEM) as work:
                await create_access_token(work, user=user, member=member, name="x")
    async with database.read() as session:
        assert await session.scalar(select(func.count()).select_from(AccessToken)) == 0
