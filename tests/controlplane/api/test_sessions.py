"""Open connections end when their caller may not see any more what it could see."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update
from structlog.testing import capture_logs

from controlplane.access.models import AccessToken
from controlplane.api import sessions as module
from controlplane.api.sessions import Session, Sessions
from controlplane.authz import SYSTEM, Caller, Role
from controlplane.db import Database
from controlplane.settings import sqlite_url
from controlplane.tenancy.models import Member


async def forever(_seconds: float) -> None:
    await asyncio.Event().wait()


class Watch:
    """Sessions whose checks are made when the test says, and how often each was ended."""

    def __init__(self, sessions: Sessions) -> None:
        self.sessions = sessions
        self.ends: dict[str, int] = {}

    def enter(self, name: str, caller: Caller) -> Session | None:
        self.ends[name] = 0

        def end() -> None:
            self.ends[name] += 1

        return self.sessions.enter(caller, end)

    async def ended(self) -> set[str]:
        await self.sessions.check()
        assert max(self.ends.values()) <= 1
        return {name for name, count in self.ends.items() if count}


@pytest.fixture
async def watch(api):
    sessions = Sessions(api.plane.database, api.plane.installation, sleep=forever)
    yield Watch(sessions)
    await sessions.stop()


async def caller_with_token(api, caller: Caller) -> Caller:
    token = await api.token(caller)
    found = await api.plane.api._handler.authenticator.caller_of(token)
    assert found is not None
    return found


async def change(api, statement: Any) -> None:
    async with api.plane.database.write() as session:
        await session.execute(statement)


async def test_nobody_is_ended_while_nothing_changes(api, org, foreign, watch) -> None:
    for name, caller in org.callers().items():
        watch.enter(name, await caller_with_token(api, caller))
    watch.enter("foreign", await caller_with_token(api, foreign.admin))
    for _ in range(3):
        assert await watch.ended() == set()


async def test_a_revoked_token_ends_its_connections_and_no_others(api, org, watch, clock) -> None:
    first = await caller_with_token(api, org.admin)
    second = await caller_with_token(api, org.admin)
    for name, caller in (("a", first), ("b", first), ("c", second)):
        watch.enter(name, caller)
    revoked = update(AccessToken).where(AccessToken.id == first.token_id)
    await change(api, revoked.values(revoked_at=api.plane.installation.now()))
    assert await watch.ended() == {"a", "b"}
    assert await watch.ended() == {"a", "b"}


async def test_a_token_ends_its_connections_when_it_expires(api, org, watch, clock) -> None:
    caller = await caller_with_token(api, org.admin)
    watch.enter("a", caller)
    expires = update(AccessToken).where(AccessToken.id == caller.token_id)
    now = api.plane.installation.now()
    await change(api, expires.values(expires_at=now + timedelta(seconds=60)))
    clock.advance_ns(60_000_000_000 - 1_000)
    assert await watch.ended() == set()
    clock.advance_ns(1_000)
    assert await watch.ended() == {"a"}


async def test_a_member_that_becomes_another_ends_its_connections(api, org, watch) -> None:
    names = ("admin", "member", "other_member", "billing_viewer")
    for name in names:
        watch.enter(name, await caller_with_token(api, org.callers()[name]))

    async def alter(caller: Caller, **values: Any) -> None:
        member_id = caller.membership.member_id
        await change(api, update(Member).where(Member.id == member_id).values(**values))

    await alter(org.billing_viewer, role=Role.MEMBER)
    assert await watch.ended() == {"billing_viewer"}
    await alter(org.member, team_id=org.other_team)
    assert await watch.ended() == {"billing_viewer", "member"}
    await alter(org.admin, version=7)
    assert await watch.ended() == {"billing_viewer", "member"}


async def test_one_that_is_opened_during_a_check_is_left_open(api, org, watch, monkeypatch) -> None:
    """The database had been asked before it was there, and said nothing of it."""
    watch.enter("first", await caller_with_token(api, org.member))
    late = await caller_with_token(api, org.admin)
    ask = module.callers_of_tokens

    async def asked(*arguments: Any) -> Any:
        found = await ask(*arguments)
        watch.enter("late", late)
        return found

    monkeypatch.setattr(module, "callers_of_tokens", asked)
    assert await watch.ended() == set()


async def test_one_that_left_during_a_check_is_not_ended(api, org, watch, monkeypatch) -> None:
    session = watch.enter("gone", await caller_with_token(api, org.member))

    async def asked(*_arguments: Any) -> Any:
        watch.sessions.leave(session)
        return {}

    monkeypatch.setattr(module, "callers_of_tokens", asked)
    assert await watch.ended() == set()


async def test_a_caller_without_a_token_is_not_watched_for_long(watch) -> None:
    watch.enter("system", SYSTEM)
    assert await watch.ended() == {"system"}


async def test_there_are_only_so_many(api, org, foreign, watch, monkeypatch) -> None:
    monkeypatch.setattr(module, "SESSIONS_PER_USER_MAX", 2)
    monkeypatch.setattr(module, "SESSIONS_MAX", 3)
    one = await caller_with_token(api, org.admin)
    entered = [watch.enter(name, one) for name in "abc"]
    assert [each is None for each in entered] == [False, False, True]
    others = [await caller_with_token(api, each) for each in (org.member, foreign.admin)]
    assert watch.enter("d", others[0]) is not None
    assert watch.enter("e", others[1]) is None
    watch.sessions.leave(entered[0])
    assert watch.enter("e", others[1]) is not None


class Ticks:
    """Counts the pauses between checks, and takes none."""

    def __init__(self) -> None:
        self.count = 0

    async def __call__(self, _seconds: float) -> None:
        self.count += 1
        await asyncio.sleep(0)


async def test_without_an_answer_all_are_ended(api, org, tmp_path: Path) -> None:
    ticks, ended = Ticks(), asyncio.Event()
    gone = Database(sqlite_url(tmp_path / "no" / "such" / "folder.db"))
    sessions = Sessions(gone, api.plane.installation, sleep=ticks)
    sessions.enter(await caller_with_token(api, org.admin), ended.set)
    with capture_logs() as logs:
        async with asyncio.timeout(20):
            await ended.wait()
    assert [each["event"] for each in logs] == ["sessions_not_checked"] * 5
    assert ticks.count == module.UNCHECKED_CHECKS_MAX
    await sessions.stop()
    await gone.aclose()


async def test_a_database_that_hangs_does_not_answer(api, org, monkeypatch) -> None:
    async def hang(*_arguments: Any) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(module, "callers_of_tokens", hang)
    monkeypatch.setattr(module, "CHECK_TIMEOUT_S", 0.001)
    ticks, ended = Ticks(), asyncio.Event()
    sessions = Sessions(api.plane.database, api.plane.installation, sleep=ticks)
    sessions.enter(await caller_with_token(api, org.admin), ended.set)
    with capture_logs() as logs:
        async with asyncio.timeout(20):
            await ended.wait()
    assert [each["event"] for each in logs] == ["sessions_not_checked"] * 5
    assert ticks.count == module.UNCHECKED_CHECKS_MAX
    await sessions.stop()


async def test_an_answer_in_between_begins_the_count_anew(api, org, monkeypatch) -> None:
    ask, calls = module.callers_of_tokens, 0
    enough = asyncio.Event()

    async def flaky(*arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls > 3 * module.UNCHECKED_CHECKS_MAX:
            enough.set()
        if calls % module.UNCHECKED_CHECKS_MAX:
            raise OSError
        return await ask(*arguments)

    monkeypatch.setattr(module, "callers_of_tokens", flaky)
    ended: list[int] = []
    sessions = Sessions(api.plane.database, api.plane.installation, sleep=Ticks())
    sessions.enter(await caller_with_token(api, org.admin), lambda: ended.append(1))
    with capture_logs():
        async with asyncio.timeout(20):
            await enough.wait()
    assert ended == []
    await sessions.stop()


async def test_nothing_is_checked_while_nobody_is_connected(api, org) -> None:
    ticks = Ticks()
    sessions = Sessions(api.plane.database, api.plane.installation, sleep=ticks)
    session = sessions.enter(await caller_with_token(api, org.admin), lambda: None)
    sessions.leave(session)
    async with asyncio.timeout(20):
        await asyncio.wait({sessions._checking})
    assert ticks.count == 0
    assert sessions.enter(await caller_with_token(api, org.admin), lambda: None) is not None
    assert not sessions._checking.done()
    await sessions.stop()
