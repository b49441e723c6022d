"""Virtual keys: created once, shown once, revoked for good."""

from __future__ import annotations

from datetime import timedelta

import pytest
from sqlalchemy import func, select

from controlplane.audit.models import AdminEvent
from controlplane.authz import Caller
from controlplane.errors import (
    Conflict,
    IdempotencyMismatch,
    InvalidInput,
    NotFound,
    NotPermitted,
    StaleVersion,
)
from controlplane.events import OrganizationChanged
from controlplane.keys.models import IdempotencyKey, KeySecret, KeyState, VirtualKey
from controlplane.keys.secret import SecretKind, digest, kind_of
from controlplane.keys.service import NewKey, create_key, revoke_key, set_key_enabled
from controlplane.limits.models import Limit
from controlplane.policies.models import Rule
from tests.controlplane.conftest import member_id

TABLES = (VirtualKey, KeySecret, IdempotencyKey, AdminEvent, Limit, Rule)


async def counts(database) -> list[int]:
    async with database.read() as session:
        return [await session.scalar(select(func.count()).select_from(each)) for each in TABLES]


async def test_creating_a_key_shows_its_secret_and_stores_its_digest(
    work_as, org, database, installation, published
) -> None:
    async with work_as(org.admin) as work:
        created = await create_key(work, org.id, NewKey("ci"), idempotency_key="1")
    assert kind_of(created.secret) is SecretKind.LIVE_KEY
    assert (created.key.prefix, created.key.last_four) == (created.secret[:12], created.secret[-4:])
    async with database.read() as session:
        stored = await session.scalar(select(KeySecret))
        event = await session.scalar(select(AdminEvent).where(AdminEvent.action == "key.create"))
    assert stored.digest == digest(created.secret, installation.pepper)
    assert (event.action, event.actor_id) == ("key.create", org.admin.user_id)
    assert created.secret not in str(event.after)
    assert published == [OrganizationChanged(org.id, (created.key.id,), policy=True)]


async def test_the_same_call_again_returns_the_first_key_without_its_secret(
    work_as, org, database
) -> None:
    async with work_as(org.admin) as work:
        first = await create_key(work, org.id, NewKey("ci"), idempotency_key="1")
    before = await counts(database)
    async with work_as(org.admin) as work:
        again = await create_key(work, org.id, NewKey("ci"), idempotency_key="1")
    assert (again.key.id, again.secret, again.replayed) == (first.key.id, None, True)
    assert await counts(database) == before


async def test_an_idempotency_key_is_the_callers_own(work_as, org) -> None:
    async with work_as(org.admin) as work:
        first = await create_key(work, org.id, NewKey("ci"), idempotency_key="1")
        own = NewKey("ci", team_id=org.team)
    async with work_as(org.team_admin) as work:
        other = await create_key(work, org.id, own, idempotency_key="1")
    assert other.key.id != first.key.id


@pytest.mark.parametrize(
    ("new", "fault"),
    [
        (NewKey("other"), IdempotencyMismatch),
        (NewKey("ci", tags={"a": "b"}), IdempotencyMismatch),
    ],
)
async def test_another_input_under_the_same_idempotency_key_is_refused(
    work_as, org, database, new, fault
) -> None:
    async with work_as(org.admin) as work:
        await create_key(work, org.id, NewKey("ci"), idempotency_key="1")
    before = await counts(database)
    with pytest.raises(fault):
        async with work_as(org.admin) as work:
            await create_key(work, org.id, new, idempotency_key="1")
    assert await counts(database) == before


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"name": " "}, "name"),
        ({"name": "x" * 201}, "name"),
        ({"name": "a\nb"}, "name"),
        ({"tags": {f"t{number}": "v" for number in range(21)}}, "tags"),
        ({"requests_per_minute": -1}, "requestsPerMinute"),
        ({"tokens_per_minute": 10**12 + 1}, "tokensPerMinute"),
        ({"allowed_models": ("m" * 201,)}, "allowedModels"),
    ],
)
async def test_an_unusable_input_changes_nothing(work_as, org, database, published, values, field):
    before = await counts(database)
    new = NewKey(**{"name": "ci", **values})
    with pytest.raises(InvalidInput) as raised:
        async with work_as(org.admin) as work:
            await create_key(work, org.id, new, idempotency_key="1")
    assert raised.value.field == (field,)
    assert await counts(database) == before
    assert published == []


async def test_a_key_cannot_expire_before_it_is_made(work_as, org, database, installation) -> None:
    before = await counts(database)
    new = NewKey("ci", expires_at=installation.now())
    with pytest.raises(InvalidInput, match="future"):
        async with work_as(org.admin) as work:
            await create_key(work, org.id, new, idempotency_key="1")
    assert await counts(database) == before
    async with work_as(org.admin) as work:
        new = NewKey("ci", expires_at=installation.now() + timedelta(microseconds=1))
        await create_key(work, org.id, new, idempotency_key="1")


async def test_revoking_is_final_and_repeatable(work_as, org, published) -> None:
    async with work_as(org.admin) as work:
        key = (await create_key(work, org.id, NewKey("ci"), idempotency_key="1")).key
    published.clear()
    for _ in range(2):
        async with work_as(org.admin) as work:
            revoked = await revoke_key(work, org.id, key.id, reason="leaked")
    assert (revoked.state, revoked.version) == (KeyState.REVOKED, 2)
    assert published == [OrganizationChanged(org.id, (key.id,), policy=False)]
    with pytest.raises(Conflict):
        async with work_as(org.admin) as work:
            await set_key_enabled(work, org.id, key.id, enabled=True)


async def test_disabling_needs_the_version_that_was_seen(work_as, org) -> None:
    async with work_as(org.admin) as work:
        key = (await create_key(work, org.id, NewKey("ci"), idempotency_key="1")).key
    with pytest.raises(StaleVersion):
        async with work_as(org.admin) as work:
            await set_key_enabled(work, org.id, key.id, enabled=False, expected_version=2)
    async with work_as(org.admin) as work:
        done = await set_key_enabled(work, org.id, key.id, enabled=False, expected_version=1)
    assert (done.state, done.version) == (KeyState.DISABLED, 2)


async def test_a_member_owns_the_key_it_creates_and_no_other(work_as, org) -> None:
    async with work_as(org.member) as work:
        own = (await create_key(work, org.id, NewKey("mine"), idempotency_key="1")).key
    assert own.member_id == org.member.membership.member_id
    async with work_as(org.admin) as work:
        other = (await create_key(work, org.id, NewKey("ci"), idempotency_key="1")).key
    with pytest.raises(NotFound):
        async with work_as(org.member) as work:
            await revoke_key(work, org.id, other.id)
    async with work_as(org.member) as work:
        assert (await revoke_key(work, org.id, own.id)).state is KeyState.REVOKED


async def test_nobody_creates_keys_for_whom_it_may_not(work_as, org, foreign, database) -> None:
    stranger: Caller = foreign.admin
    cases = [
        (org.billing_viewer, NewKey("k"), NotPermitted),
        (stranger, NewKey("k"), NotFound),
        (org.admin, NewKey("k", team_id=foreign.team), NotFound),
        (org.admin, NewKey("k", member_id=foreign.member.membership.member_id), NotFound),
        (org.team_admin, NewKey("k", team_id=org.other_team), NotFound),
        (org.team_admin, NewKey("k", member_id=member_id(org.other_member)), NotFound),
        (org.member, NewKey("k", team_id=org.other_team), NotFound),
        (org.member, NewKey("k", member_id=org.other_member.membership.member_id), NotFound),
    ]
    before = await counts(database)
    for caller, new, fault in cases:
        with pytest.raises(fault):
            async with work_as(caller) as work:
                await create_key(work, org.id, new, idempotency_key="1")
    assert await counts(database) == before


async def test_who_reaches_no_farther_makes_keys_inside_its_team(work_as, org) -> None:
    for caller, team_id in [(org.member, org.team), (org.team_admin, org.team), (org.admin, None)]:
        new = NewKey("mine", member_id=member_id(caller))
        async with work_as(caller) as work:
            made = await create_key(work, org.id, new, idempotency_key="inside")
        async with work_as(caller) as work:
            again = await create_key(work, org.id, new, idempotency_key="inside")
        assert (made.key.team_id, again.key.id, again.replayed) == (team_id, made.key.id, True)
