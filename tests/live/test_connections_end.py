"""Open sockets and event streams end when their caller may not see any more what it saw."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import update
from structlog.testing import capture_logs

from controlplane.access.models import AccessToken
from controlplane.access.service import create_access_token
from controlplane.api import sessions, socket
from controlplane.api.socket import SocketHandler
from controlplane.authz import Role
from controlplane.db import Database
from controlplane.settings import sqlite_url
from controlplane.tenancy.models import Member, User
from tests.live.conftest import LIVE, TIMEOUT_S, place_of
from tests.stack import Stack

pytestmark = pytest.mark.usefixtures("insides", "often")


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "CHECK_EVERY_S", 0.02)


def token_of_member(stack: Stack, expires_at: datetime | None = None) -> str:
    async def make(work: Any) -> str:
        member = await work.session.get(Member, stack.member_id)
        user = await work.session.get(User, member.user_id)
        return await create_access_token(
            work, user=user, member=member, name="own", expires_at=expires_at
        )

    return stack.change(make)


def execute(stack: Stack, statement: Any) -> None:
    async def act(work: Any) -> None:
        await work.session.execute(statement)

    stack.change(act)


def revoke(stack: Stack) -> None:
    now = stack.comptroller.control.installation.now()
    tokens = update(AccessToken).where(AccessToken.member_id == stack.member_id)
    execute(stack, tokens.values(revoked_at=now))


def expire(stack: Stack) -> None:
    now = stack.comptroller.control.installation.now()
    tokens = update(AccessToken).where(AccessToken.member_id == stack.member_id)
    execute(stack, tokens.values(expires_at=now))


def promote(stack: Stack) -> None:
    members = update(Member).where(Member.id == stack.member_id)
    execute(stack, members.values(role=Role.TEAM_ADMIN))


def leave_team(stack: Stack) -> None:
    execute(stack, update(Member).where(Member.id == stack.member_id).values(team_id=None))


CHANGES = [revoke, expire, promote, leave_team]


@contextmanager
def event_stream(stack: Stack, token: str) -> Iterator[Iterator[str]]:
    headers = {"authorization": f"Bearer {token}", "accept": "text/event-stream"}
    body = {"query": LIVE, "variables": {"place": place_of(stack)}}
    with (
        httpx.Client(timeout=TIMEOUT_S) as client,
        client.stream("POST", f"{stack.address}/graphql", json=body, headers=headers) as answer,
    ):
        yield answer.iter_lines()


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_of_the_caller_ends_what_it_opened(
    stack, dial, insides, change: Callable[[Stack], None]
) -> None:
    token = token_of_member(stack)
    with dial() as own, dial() as admin, event_stream(stack, token) as lines:
        for client, secret in ((own, token), (admin, stack.admin_token)):
            client.init(secret)
            client.subscribe("a", place=place_of(stack))
            assert client.next()["type"] == "next"
        assert [next(lines) for _ in range(3)][:2] == [":", ""]
        insides.wait_for((2, 1, 3, 2))
        change(stack)
        # Nothing comes after it but the end.
        assert own.next() == 4403
        assert own.connection.close_reason == "Forbidden"
        rest = [line for line in lines if line]
        assert [line.split(":")[0] for line in rest] == ["data", "event", "data"]
        assert rest[1:] == ["event: complete", "data: "]
        insides.wait_for((1, 1, 1, 1))
        assert admin.connection.close_code is None


def test_a_token_that_is_over_lets_nobody_in(stack, dial) -> None:
    for change in (revoke, expire):
        token = token_of_member(stack)
        change(stack)
        with dial() as client:
            authorization = {"authorization": f"Bearer {token}"}
            client.send({"type": "connection_init", "payload": authorization})
            assert client.close_code() == 4403


def test_a_token_works_until_the_instant_it_expires(stack, dial, insides) -> None:
    soon = stack.comptroller.control.installation.now() + timedelta(seconds=1)
    with dial() as client:
        client.init(token_of_member(stack, expires_at=soon))
        client.subscribe("a", place=place_of(stack))
        assert client.next()["type"] == "next"
        assert client.close_code() == 4403
        assert stack.comptroller.control.installation.now() >= soon


def test_a_database_that_does_not_answer_closes_and_is_logged(
    stack, dial, tmp_path: Path, monkeypatch
) -> None:
    authenticator = stack.comptroller.control.api._handler.authenticator
    before = authenticator.database
    gone = Database(sqlite_url(tmp_path / "no" / "such" / "folder.db"))
    object.__setattr__(authenticator, "database", gone)
    try:
        with capture_logs() as logs, dial() as client:
            authorization = {"authorization": f"Bearer {stack.admin_token}"}
            client.send({"type": "connection_init", "payload": authorization})
            assert client.close_code() == 4500
            assert client.connection.close_reason == "Internal server error"
    finally:
        object.__setattr__(authenticator, "database", before)
    assert [each["event"] for each in logs] == ["socket_failed"]


def test_a_client_that_reads_nothing_cannot_stay(stack, monkeypatch) -> None:
    """The server's own `send` may never return; a socket that must close closes all the same."""
    monkeypatch.setattr(socket, "CLOSE_TIMEOUT_S", 0.05)
    handler: SocketHandler = stack.comptroller.control.api._sockets
    sent: list[Any] = []
    messages = [
        {"type": "websocket.connect"},
        {
            "type": "websocket.receive",
            "text": json.dumps(
                {
                    "type": "connection_init",
                    "payload": {"authorization": f"Bearer {stack.admin_token}"},
                }
            ),
        },
    ]

    async def serve() -> None:
        stuck = asyncio.Event()

        async def receive() -> Any:
            if messages:
                return messages.pop(0)
            return await asyncio.Event().wait()

        async def send(message: Any) -> None:
            sent.append(message)
            if message["type"] == "websocket.send":
                stuck.set()
                await asyncio.Event().wait()

        scope = {"type": "websocket", "headers": [], "subprotocols": ["graphql-transport-ws"]}
        serving = asyncio.create_task(handler(scope, receive, send))  # type: ignore[arg-type]
        async with asyncio.timeout(TIMEOUT_S):
            await stuck.wait()
            [session] = [
                each
                for each in stack.comptroller.control.api.sessions._open
                if each.caller.membership.organization_id == stack.organization_id
            ]
            session.end()
            await serving

    stack.run(serve)
    assert [each["type"] for each in sent] == ["websocket.accept", "websocket.send"]
