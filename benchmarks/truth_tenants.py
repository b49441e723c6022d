"""One organization for each run: with one key, an admin, and a budget once it has a history."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

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
from controlplane.migrations import upgrade
from controlplane.money import format_money
from controlplane.routes import GRAPHQL_PATH
from controlplane.tenancy.models import User
from controlplane.tenancy.service import create_member, create_organization

RECORDED_TIMEOUT_S = 60
_SET_BUDGET = """
    mutation($scope: ScopeInput!, $limit: Money!) {
      budgetUpsert(input: {scope: $scope, period: MONTH, limit: $limit}) {
        errors { message }
      }
    }
"""
_SET_WAIT = """
    mutation($scope: ScopeInput!, $wait: Int!) {
      ruleSet(input: {scope: $scope, holdWaitS: $wait}) {
        errors { message }
      }
    }
"""


@dataclass(frozen=True, slots=True)
class Tenant:
    """An organization with the secret of its key and its admin's token."""

    organization_id: UUID
    secret: str
    token: str


@dataclass(frozen=True, slots=True)
class Booked:
    """One entry of the ledger; `id` as the provider was told it."""

    id: str
    admitted_at_ns: int
    settled_at_ns: int
    nanos: int


def found_tenants(settings: Settings, slugs: Sequence[str]) -> dict[str, Tenant]:
    """Make the database and an organization for each slug."""
    return asyncio.run(_found(settings, slugs))


async def _found(settings: Settings, slugs: Sequence[str]) -> dict[str, Tenant]:
    clock = SystemClock()
    pepper = load_or_create_pepper(settings.control.data_dir)
    installation = Installation(settings.control, clock, IdSource(clock), pepper)
    await upgrade(settings.database_url)
    database = Database(settings.database_url)
    try:
        async with unit_of_work(database, installation, Events(), SYSTEM) as work:
            return {slug: await _tenant(work, slug) for slug in slugs}
    finally:
        await database.aclose()


async def _tenant(work: Work, slug: str) -> Tenant:
    organization = await create_organization(work, slug=slug, name=slug)
    admin = await create_member(
        work, organization.id, email=f"admin@{slug}.example", role=Role.ADMIN
    )
    user = await work.session.get(User, admin.user_id)
    assert user is not None
    token = await create_access_token(work, user=user, member=admin, name="benchmark")
    created = await create_key(work, organization.id, NewKey(slug), idempotency_key=slug)
    assert created.secret is not None
    return Tenant(organization.id, created.secret, token)


def set_budget(port: int, tenant: Tenant, cap_nanos: int) -> None:
    """Give an organization its one money budget through the API, in force when this returns."""
    variables = {"scope": _scope(tenant), "limit": format_money(cap_nanos)}
    answer = _asked(port, tenant.token, {"query": _SET_BUDGET, "variables": variables})
    if "errors" in answer or answer["data"]["budgetUpsert"]["errors"]:
        raise RuntimeError(f"the budget was not set: {answer}")


def set_wait(port: int, tenant: Tenant, wait_s: int) -> bool:
    """Say how long requests of an organization wait for others; False: the API has no rules."""
    variables = {"scope": _scope(tenant), "wait": wait_s}
    answer = _asked(port, tenant.token, {"query": _SET_WAIT, "variables": variables})
    if any("Cannot query field" in each["message"] for each in answer.get("errors", ())):
        return False
    if "errors" in answer or answer["data"]["ruleSet"]["errors"]:
        raise RuntimeError(f"the wait was not set: {answer}")
    return True


def _scope(tenant: Tenant) -> dict[str, str]:
    organization = tenant.organization_id
    return {"organizationId": global_id(NodeKind.ORGANIZATION, organization, organization)}


def _asked(port: int, token: str, operation: dict[str, Any]) -> dict[str, Any]:
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}{GRAPHQL_PATH}",
        json.dumps(operation).encode(),
        {"authorization": f"Bearer {token}", "content-type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            found: dict[str, Any] = json.load(answer)
    except urllib.error.HTTPError as error:
        found = json.load(error)
    return found


def until_recorded(file: Path, requests: int) -> None:
    """Wait until the database holds the records of so many requests, of all organizations."""
    deadline = time.monotonic() + RECORDED_TIMEOUT_S
    while (count := _rows(file, "SELECT count(*) FROM decision_records")[0][0]) < requests:
        if time.monotonic() > deadline:
            raise TimeoutError(f"only {count} of {requests} requests were recorded")
        time.sleep(0.1)


def booked_by(file: Path, tenant: Tenant, since_ns: int = 0) -> list[Booked]:
    """Read what was booked for requests of an organization that came at an instant or later."""
    query = (
        "SELECT id, admitted_at_ns, settled_at_ns, charge_nanos"
        " FROM ledger_entries WHERE organization_id = ? AND admitted_at_ns >= ?"
    )
    rows = _rows(file, query, tenant.organization_id.hex, since_ns)
    return [Booked(f"req_{UUID(row[0]).hex}", *row[1:]) for row in rows]


def first_refusal_at_ns(file: Path, tenant: Tenant) -> int | None:
    """Find when the first request for which there was no money was refused; None: none was."""
    query = (
        "SELECT min(finished_at_ns) FROM decision_records"
        " WHERE organization_id = ? AND decision = 'refused' AND http_status = 402"
    )
    found: int | None = _rows(file, query, tenant.organization_id.hex)[0][0]
    return found


def _rows(file: Path, query: str, *values: object) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True, timeout=60)) as database:
        return database.execute(query, values).fetchall()
