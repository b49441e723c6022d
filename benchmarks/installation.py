"""An installation to be measured: a governed key under twelve limits, and a free one under none."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

from benchmarks.processes import OTHER_CORE, SERVER_CORE, pinned, until_answering
from comptroller.server import APPLICATION, serve
from comptroller.settings import Settings
from controlplane.access.service import create_access_token
from controlplane.api.nodes import NodeKind, global_id
from controlplane.authz import SYSTEM, Role
from controlplane.clock import SystemClock
from controlplane.context import Installation, Work, unit_of_work
from controlplane.db import Database
from controlplane.events import Events
from controlplane.ids import IdSource
from controlplane.keys.secret import load_or_create_pepper
from controlplane.keys.service import NewKey, create_key
from controlplane.limits.models import Period, ScopeKind
from controlplane.limits.service import set_breaker, upsert_budget
from controlplane.limits.subjects import Scope
from controlplane.migrations import upgrade
from controlplane.tenancy.models import Organization, User
from controlplane.tenancy.service import create_member, create_organization, create_team

# So high that no measurement reaches it.
CAP_NANOS = 10**18
PER_MINUTE = 10**9
# What the API shows in a list; the limits are those of one more.
TEAMS = 9
STREAM_PACE_MS = 20
MODELS = {"answers": "json", "streams": f"sse/{STREAM_PACE_MS}"}
TARGETS = {
    "floor": "benchmarks.floor:create_app",
    "unrecorded": "benchmarks.unrecorded:create_app",
    "product": APPLICATION,
    "stock": "benchmarks.stock:create_app",
    "crowded-small": "benchmarks.crowded:create_small",
    "crowded-large": "benchmarks.crowded:create_large",
    "fanout": "benchmarks.fanout_server:create_app",
}
# What most benchmarks compare.
REQUEST_SERVERS = ("floor", "unrecorded", "product")
# Nobody who measures must wait for points.
POINTS = {
    "COMPTROLLER_API_POINTS_MAX": "1000000000",
    "COMPTROLLER_API_POINTS_PER_S": "100000000",
}


@dataclass(frozen=True, slots=True)
class Secrets:
    """Keys: `governed` is under twelve limits, `free` under none; access tokens of two admins."""

    governed: str
    free: str
    tokens: tuple[str, str]


@dataclass(frozen=True, slots=True)
class Server:
    """A server that runs on a core of its own."""

    pid: int
    port: int
    secrets: Secrets


def found(settings: Settings) -> Secrets:
    """Make the database with both keys."""
    return asyncio.run(_found(settings))


async def _found(settings: Settings) -> Secrets:
    clock = SystemClock()
    pepper = load_or_create_pepper(settings.control.data_dir)
    installation = Installation(settings.control, clock, IdSource(clock), pepper)
    await upgrade(settings.database_url)
    database = Database(settings.database_url)
    try:
        async with unit_of_work(database, installation, Events(), SYSTEM) as work:
            organization = await create_organization(work, slug="governed", name="Governed")
            tokens = (await _admin(work, organization, "a"), await _admin(work, organization, "b"))
            governed = await _governed(work, organization)
            return Secrets(governed, await _free(work), tokens)
    finally:
        await database.aclose()


async def _free(work: Work) -> str:
    organization = await create_organization(work, slug="free", name="Free")
    created = await create_key(work, organization.id, NewKey("free"), idempotency_key="free")
    assert created.secret is not None
    return created.secret


async def _admin(work: Work, organization: Organization, name: str) -> str:
    member = await create_member(
        work, organization.id, email=f"{name}@governed.example", role=Role.ADMIN
    )
    user = await work.session.get(User, member.user_id)
    assert user is not None
    return await create_access_token(work, user=user, member=member, name="benchmark")


async def _governed(work: Work, organization: Organization) -> str:
    """Make eight budgets, two breaker windows, requests and tokens a minute: twelve limits."""
    for number in range(TEAMS):
        await create_team(work, organization.id, name=f"Team {number}")
    team = await create_team(work, organization.id, name="Team")
    member = await create_member(
        work, organization.id, email="member@governed.example", team_id=team.id
    )
    new = NewKey(
        "governed",
        member_id=member.id,
        team_id=team.id,
        requests_per_minute=PER_MINUTE,
        tokens_per_minute=PER_MINUTE,
    )
    created = await create_key(work, organization.id, new, idempotency_key="governed")
    assert created.secret is not None
    scopes = (
        Scope(ScopeKind.KEY, created.key.id),
        Scope(ScopeKind.MEMBER, member.id),
        Scope(ScopeKind.TEAM, team.id),
        Scope(ScopeKind.ORGANIZATION, organization.id),
    )
    for scope in scopes:
        for period in (Period.DAY, Period.MONTH):
            await upsert_budget(work, organization.id, scope, period=period, cap_nanos=CAP_NANOS)
    await set_breaker(
        work, organization.id, scopes[-1], minute_nanos=CAP_NANOS, hour_nanos=CAP_NANOS
    )
    return created.secret


@contextmanager
def provider() -> Iterator[int]:
    """Run the provider beside the load; gives its port."""
    with pinned("benchmarks.provider", core=OTHER_CORE) as process:
        assert process.stdout is not None
        yield int(process.stdout.readline())


@contextmanager
def servers(
    folder: Path, provider_port: int, names: tuple[str, ...] = REQUEST_SERVERS
) -> Iterator[dict[str, Server]]:
    """Run the named servers, all on one core, each with an installation of its own."""
    with ExitStack() as stack:
        yield {
            name: stack.enter_context(_server(name, folder / name, provider_port)) for name in names
        }


@contextmanager
def _server(name: str, folder: Path, provider_port: int) -> Iterator[Server]:
    folder.mkdir()
    environment = environment_of(folder, provider_port)
    with running(name, environment, found(Settings.from_environment(environment))) as server:
        yield server


@contextmanager
def running(name: str, environment: dict[str, str], secrets: Secrets) -> Iterator[Server]:
    """Run a server over an installation that there is."""
    with listening(name, environment) as (pid, port):
        yield Server(pid, port, secrets)


@contextmanager
def listening(name: str, environment: dict[str, str]) -> Iterator[tuple[int, int]]:
    """Run a server on its core until the end of the block; gives its process id and port."""
    port = free_port()
    environment = {**environment, "COMPTROLLER_PORT": str(port)}
    arguments = ("benchmarks.installation", name)
    with pinned(*arguments, core=SERVER_CORE, environment=environment) as process:
        until_answering(port)
        yield process.pid, port


def global_organization_id(file: Path) -> str:
    """Read the global id of the governed organization from a database file."""
    with closing(sqlite3.connect(file)) as database:
        query = "SELECT id FROM organizations WHERE slug = 'governed'"
        found = UUID(database.execute(query).fetchone()[0])
    return global_id(NodeKind.ORGANIZATION, found, found)


def environment_of(folder: Path, provider_port: int) -> dict[str, str]:
    """Write the settings of an installation in a folder."""
    return environment_with(folder, _upstreams(provider_port))


def environment_with(folder: Path, upstreams: dict[str, object]) -> dict[str, str]:
    """Write the settings of an installation in a folder, with upstreams of one's own."""
    path = folder / "upstreams.json"
    path.write_text(json.dumps(upstreams))
    return {
        "COMPTROLLER_DATA_DIR": str(folder),
        "COMPTROLLER_UPSTREAMS_FILE": str(path),
        "COMPTROLLER_DATABASE_URL": "",
        **POINTS,
    }


def _upstreams(provider_port: int) -> dict[str, object]:
    """Serve two models of one price: one answers in one piece, one as a stream."""
    return {
        "upstreams": [
            {
                "name": name,
                "provider": "openai",
                "base_url": f"http://127.0.0.1:{provider_port}/{path}",
                "private_addresses": ["127.0.0.0/8"],
                "models": [{"name": name, "upstream_model": "gpt-4o-mini"}],
            }
            for name, path in MODELS.items()
        ]
    }


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


if __name__ == "__main__":
    serve(Settings.from_environment(os.environ).server, TARGETS[sys.argv[1]])
