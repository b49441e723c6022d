"""A client of the API, and tokens for every kind of caller."""

from __future__ import annotations

import json
import shutil
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
from litestar import Litestar
from sqlalchemy import select

from controlplane.access.service import create_access_token, create_operator
from controlplane.api import entry
from controlplane.authz import SYSTEM, Caller
from controlplane.context import Work
from controlplane.keys.models import VirtualKey
from controlplane.ledger.recorder import Recorder
from controlplane.ledger.records import DecisionRecord, LedgerEntry
from controlplane.limits.state import LimitState
from controlplane.live.feed import LiveFeed
from controlplane.routes import ControlPlane
from controlplane.scope import owned
from controlplane.settings import sqlite_url
from controlplane.tenancy.models import Member, User


@dataclass(slots=True)
class Api:
    """Posts documents; `states` is what the fake engine says about limits."""

    client: httpx.AsyncClient
    plane: ControlPlane
    states: dict[Any, LimitState]
    recorder: Recorder

    async def traffic(self) -> None:
        """Put one more request of every key on record."""
        async with self.plane.database.read() as session:
            keys = list(await session.scalars(select(VirtualKey)))  # of all organizations
        for key in keys:
            self.recorder.put(_record_of(key, self.plane.installation.clock.wall_ns()))
        await self.recorder.flush()

    async def token(self, caller: Caller) -> str:
        async with self.plane.database.write() as session:
            work = Work(session, self.plane.installation, SYSTEM, self.plane.installation.now())
            user = await session.scalar(select(User).where(User.id == caller.user_id))
            member = await session.scalar(
                owned(Member, caller.membership.organization_id).where(
                    Member.id == caller.membership.member_id
                )
            )
            return await create_access_token(work, user=user, member=member, name="test")

    async def operator_token(self) -> str:
        async with self.plane.database.write() as session:
            work = Work(session, self.plane.installation, SYSTEM, self.plane.installation.now())
            user = await create_operator(work, email="root@example.org")
            return await create_access_token(work, user=user, member=None, name="root")

    async def post(self, token: str, query: str, **variables: Any) -> httpx.Response:
        return await self.client.post(
            "/graphql",
            json={"query": query, "variables": variables},
            headers={"authorization": f"Bearer {token}"},
        )

    async def ask(self, token: str, query: str, **variables: Any) -> Any:
        response = await self.post(token, query, **variables)
        body = json.loads(response.content)
        assert response.status_code == 200, body
        assert "errors" not in body, body
        return body["data"]


def _record_of(key: VirtualKey, now_ns: int) -> DecisionRecord:
    return DecisionRecord(
        id=uuid4().bytes,
        organization_id=key.organization_id,
        team_id=key.team_id,
        member_id=key.member_id,
        key_id=key.id,
        route="/v1/chat/completions",
        policy_version="p",
        currency="USD",
        invoice_period="2026-03",
        charge_nanos=50_000_000,
        decision="allowed",
        http_status=200,
        admitted_at_ns=now_ns,
        finished_at_ns=now_ns,
        latency_ns=1,
        engine_version="1",
        served_model=f"{key.name}-model",
        entry=LedgerEntry(settled_at_ns=now_ns),
    )


def feed_of(database, installation, events) -> tuple[LiveFeed, Recorder]:
    """Make a feed of live figures and the recorder that fills it."""
    fed: list[LiveFeed] = []
    recorder = Recorder(
        database,
        queue_max=1_000,
        acknowledge=lambda _organization_id, _seq: None,
        written=lambda batch: fed[0].take(batch),  # noqa: PLW0108 - made below
    )
    fed.append(LiveFeed(installation.clock, recorder.flushed_session, events))
    return fed[0], recorder


@pytest.fixture
def sqlite_url_of_test(sqlite_template: Path, tmp_path: Path) -> str:
    """For tests whose subject never gets as far as what differs between databases."""
    path = tmp_path / "test.db"
    shutil.copy(sqlite_template, path)
    return sqlite_url(path)


@pytest.fixture(scope="session")
def one_schema() -> Iterator[None]:
    """Make the schema once: it keeps nothing of a test, and takes longer to make than most take."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(entry, "make_schema", lru_cache(1)(entry.make_schema))
        yield


@pytest.fixture
async def api(one_schema, database, installation, events) -> AsyncIterator[Api]:
    states: dict[Any, LimitState] = {}
    live, recorder = feed_of(database, installation, events)
    plane = ControlPlane(
        installation.settings,
        installation.clock,
        installation.ids,
        database,
        events,
        live,
        limit_states=lambda _organization_id: states,
    )
    app = Litestar(route_handlers=list(plane.routes), openapi_config=None)
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        recorder.start()
        yield Api(client, plane, states, recorder)
        await plane.stop()
        await recorder.stop()
