"""Rotation: a new secret at once, older ones for a while, never for longer."""

from __future__ import annotations

from datetime import timedelta

import pytest

from controlplane.errors import Conflict, InvalidInput
from controlplane.events import OrganizationChanged
from controlplane.keys.queries import secrets_of
from controlplane.keys.rotation import (
    GRACE_S_MAX,
    OLDER_SECRETS_MAX,
    previous_ends_at,
    rotate_key,
    rotated_at,
)
from controlplane.keys.secret import SecretKind, digest, kind_of
from controlplane.keys.service import NewKey, create_key, revoke_key
from tests.controlplane.everything import everything

SECOND_NS = 1_000_000_000


@pytest.fixture
async def key(work_as, org, published):
    async with work_as(org.admin) as work:
        made = await create_key(work, org.id, NewKey("ci", is_test=True), idempotency_key="1")
    published.clear()
    return made


@pytest.fixture
def rotate(work_as, org, key, clock):
    """Rotate a second later."""
    calls = iter(range(100))

    async def act(grace_s, **more):
        clock.advance_ns(SECOND_NS)
        more = {"idempotency_key": f"rotate {next(calls)}", **more}
        async with work_as(org.admin) as work:
            return await rotate_key(work, org.id, key.key.id, grace_s=grace_s, **more)

    return act


async def stored(database, org, key, installation):
    """Give each secret's digest and the seconds it still works, newest first."""
    now = installation.now()
    async with database.read() as session:
        rows = await secrets_of(session, org.id, key.key.id)
    return [
        (row.digest, None if row.expires_at is None else (row.expires_at - now).total_seconds())
        for row in rows
    ]


async def test_the_old_secret_works_for_the_grace(
    rotate, key, database, org, installation, published
) -> None:
    done = await rotate(60)
    pepper = installation.pepper
    assert done.secret != key.secret
    assert kind_of(done.secret) is SecretKind.TEST_KEY
    assert (done.key.prefix, done.key.last_four) == (done.secret[:12], done.secret[-4:])
    assert await stored(database, org, key, installation) == [
        (digest(done.secret, pepper), None),
        (digest(key.secret, pepper), 60.0),
    ]
    assert published == [OrganizationChanged(org.id, (key.key.id,), policy=False)]


async def test_without_grace_all_older_secrets_end(rotate, key, database, org, installation):
    await rotate(600)
    done = await rotate(0)
    [only] = await stored(database, org, key, installation)
    assert only == (digest(done.secret, installation.pepper), None)


async def test_no_secret_works_longer_than_it_would_have(
    rotate, key, database, org, installation
) -> None:
    second = await rotate(10)
    await rotate(3600)
    kept = await stored(database, org, key, installation)
    pepper = installation.pepper
    assert kept[1:] == [(digest(second.secret, pepper), 3600.0), (digest(key.secret, pepper), 9.0)]


async def test_of_older_secrets_the_newest_go_on(rotate, key, database, org, installation):
    made = [key.secret] + [(await rotate(3600)).secret for _ in range(4)]
    kept = [each for each, _ in await stored(database, org, key, installation)]
    newest = list(reversed(made))[: OLDER_SECRETS_MAX + 1]
    assert kept == [digest(each, installation.pepper) for each in newest]


@pytest.mark.parametrize("grace_s", [-1, GRACE_S_MAX + 1])
async def test_a_grace_out_of_range_changes_nothing(rotate, database, published, grace_s) -> None:
    before = await everything(database)
    with pytest.raises(InvalidInput) as raised:
        await rotate(grace_s)
    assert raised.value.field == ("graceSeconds",)
    assert await everything(database) == before
    assert published == []


async def test_the_longest_grace_is_accepted(rotate, key, database, org, installation) -> None:
    await rotate(GRACE_S_MAX)
    assert (await stored(database, org, key, installation))[1][1] == float(GRACE_S_MAX)


async def test_a_revoked_key_gets_no_secret(rotate, work_as, org, key, database) -> None:
    async with work_as(org.admin) as work:
        await revoke_key(work, org.id, key.key.id)
    before = await everything(database)
    with pytest.raises(Conflict):
        await rotate(0)
    assert await everything(database) == before


async def test_a_retry_shows_the_key_of_now_without_a_secret(rotate, key, database) -> None:
    await rotate(60, idempotency_key="same", expected_version=1)
    last = await rotate(60)
    before = await everything(database)
    again = await rotate(60, idempotency_key="same", expected_version=1)
    assert (again.secret, again.replayed) == (None, True)
    assert (again.key.last_four, again.key.version) == (last.secret[-4:], 3)
    assert await everything(database) == before


async def test_what_can_be_read_of_a_rotation(
    rotate, key, database, org, installation, clock
) -> None:
    async def seen():
        async with database.read() as session:
            rows = await secrets_of(session, org.id, key.key.id)
        return rotated_at(rows, key.key), previous_ends_at(rows, installation.now())

    assert await seen() == (None, None)
    await rotate(60)
    at = installation.now()
    assert await seen() == (at, at + timedelta(seconds=60))
    clock.advance_ns(60 * SECOND_NS)
    assert await seen() == (at, None)
