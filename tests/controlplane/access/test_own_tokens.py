"""Tokens people make for themselves: no more and no longer than what they have."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from sqlalchemy import select

from controlplane.access import own
from controlplane.access.models import AccessToken
from controlplane.access.own import create_own_token, revoke_token
from controlplane.access.service import caller_of, create_operator
from controlplane.authz import SYSTEM, Caller
from controlplane.errors import (
    IdempotencyMismatch,
    InvalidInput,
    LimitExceeded,
    NotFound,
    NotPermitted,
)
from tests.controlplane.everything import everything


@pytest.fixture
def make(work_as):
    async def act(caller, key="1", *, name="laptop", expires_at=None):
        async with work_as(caller) as work:
            return await create_own_token(
                work, name=name, expires_at=expires_at, idempotency_key=key
            )

    return act


@pytest.fixture
async def operator(work_as) -> Caller:
    async with work_as(SYSTEM) as work:
        row = await create_operator(work, email="root@example.org")
    return Caller(row.id, operator=True)


@pytest.fixture
def identify(database, installation):
    async def act(secret):
        async with database.read() as session:
            return await caller_of(session, secret, installation.pepper, installation.now())

    return act


@pytest.mark.parametrize("who", ["admin", "billing_viewer", "team_admin", "member", "operator"])
async def test_a_token_stands_for_who_made_it(make, identify, org, operator, database, who):
    caller = operator if who == "operator" else getattr(org, who)
    made = await make(caller)
    assert await identify(made.secret) == caller
    before = await everything(database)
    again = await make(caller)
    assert (again.token.id, again.secret, again.replayed) == (made.token.id, None, True)
    with pytest.raises(IdempotencyMismatch):
        await make(caller, name="other")
    assert await everything(database) == before


async def test_a_token_does_not_outlive_the_one_that_makes_it(
    make, identify, org, installation, database
) -> None:
    end = installation.now() + timedelta(hours=1)
    first = await make(org.member, expires_at=end)
    caller = await identify(first.secret)
    assert caller.token_id == first.token.id
    before = await everything(database)
    for expires_at in (None, end + timedelta(microseconds=1), installation.now()):
        with pytest.raises(InvalidInput) as raised:
            await make(caller, "2", expires_at=expires_at)
        assert raised.value.field == ("expiresAt",)
    assert await everything(database) == before
    assert (await make(caller, "2", expires_at=end)).token.expires_at == end


async def test_there_are_only_so_many_usable_ones(
    make, work_as, org, installation, clock, database, monkeypatch
) -> None:
    monkeypatch.setattr(own, "ACCESS_TOKENS_MAX", 2)
    first = await make(org.member, "1")
    await make(org.member, "2", expires_at=installation.now() + timedelta(seconds=1))
    before = await everything(database)
    with pytest.raises(LimitExceeded) as raised:
        await make(org.member, "3")
    assert raised.value.maximum == 2
    assert await everything(database) == before
    clock.advance_ns(10**9)
    await make(org.member, "4")
    async with work_as(org.member) as work:
        await revoke_token(work, first.token.id)
    await make(org.member, "5")
    await make(org.admin, "1")


async def test_who_may_revoke_whose(make, work_as, identify, org, foreign, operator, database):
    mine = await make(org.member)
    roots = await make(operator)
    strangers = await make(foreign.member)
    before = await everything(database)
    refused = [
        (org.other_member, mine),
        (org.team_admin, mine),
        (org.billing_viewer, mine),
        (foreign.admin, mine),
        (org.admin, strangers),
        (org.admin, roots),
        (replace(operator, user_id=org.admin.user_id), roots),
    ]
    for caller, made in refused:
        with pytest.raises(NotFound):
            async with work_as(caller) as work:
                await revoke_token(work, made.token.id)
    assert await everything(database) == before
    async with work_as(org.admin) as work:
        await revoke_token(work, mine.token.id, reason="left")
    assert await identify(mine.secret) is None
    async with work_as(operator) as work:
        await revoke_token(work, roots.token.id)
    assert await identify(roots.secret) is None
    async with database.read() as session:
        rows = await session.scalars(select(AccessToken).where(AccessToken.revoked_at.is_(None)))
        assert [row.id for row in rows] == [strangers.token.id]


async def test_a_user_without_a_place_here_has_no_tokens(make, database, org) -> None:
    before = await everything(database)
    for caller in (Caller(org.admin.user_id), SYSTEM):
        with pytest.raises(NotPermitted):
            await make(caller)
    assert await everything(database) == before
