"""S11: pages of 50 out of ten million requests on record, through the API."""

from __future__ import annotations

import asyncio
import json
import os
import random
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from uuid import UUID

from sqlalchemy import event

from benchmarks.decision_rows import (
    COMMON_MODEL,
    KEYS,
    RARE_KEY,
    RARE_MODEL,
    SELDOM_MODEL,
    Made,
    Store,
    key_uuid,
    postgresql_store,
    sqlite_store,
    stands_at,
)
from benchmarks.installation import Server, running
from benchmarks.load import Load
from benchmarks.processes import send
from benchmarks.table import Row, median_of, percentile
from controlplane.api.nodes import NodeKind, global_id, parse_global_id
from controlplane.db import Database
from controlplane.ledger.models import DecisionRow
from controlplane.routes import GRAPHQL_PATH
from controlplane.tenancy.queries import organization_by_slug
from controlplane.usage.queries import RequestFilter, cursor, page_of_requests

ROUNDS = 3
REQUESTS = 100
# A page that takes seconds is asked for so long at most in each round, and three times at least.
ROUND_S = 5.0
REQUESTS_MIN = 3
TARGET_MS = 20.0
POSTGRESQL = "COMPTROLLER_TEST_DATABASE_URL"
QUERY = """
query ($after: String, $filter: RequestFilterInput) {
  organization(slug: "governed") {
    requests(first: 50, after: $after, filter: $filter) {
      nodes {
        id at keyId teamId requestedModel servedModel decision code httpStatus
        cost charge inputTokens outputTokens latencyMs streamed
      }
      pageInfo { hasNextPage endCursor }
    }
  }
}
"""
FLOOR = '{ organization(slug: "governed") { name } }'
Variables = dict[str, Any]
# Makes the variables of one request, given what was made and the organization.
Case = Callable[[Made, UUID], Variables]


def _first(_made: Made, _organization: UUID) -> Variables:
    return {}


def _deep(made: Made, _organization: UUID) -> Variables:
    return {"after": _cursor_at(random.randrange(made.rows), made)}


def _of_key(_made: Made, organization: UUID) -> Variables:
    return _key_filter(random.randrange(KEYS), organization)


def _of_key_deep(made: Made, organization: UUID) -> Variables:
    return {**_deep(made, organization), **_of_key(made, organization)}


def _of_rare_key(_made: Made, organization: UUID) -> Variables:
    return _key_filter(RARE_KEY, organization)


def _of_models(model: str) -> Case:
    return lambda _made, _organization: {"filter": {"models": [model]}}


def _refused(made: Made, organization: UUID) -> Variables:
    return {**_deep(made, organization), "filter": {"decisions": ["refused"]}}


CASES: dict[str, Case] = {
    "first page": _first,
    "page at any depth": _deep,
    "of one key in a thousand": _of_key,
    "   at any depth": _of_key_deep,
    "of a key with 10 requests": _of_rare_key,
    "of a model with 60 %": _of_models(COMMON_MODEL),
    "of a model with 1 %": _of_models(SELDOM_MODEL),
    "of a model with 10 requests": _of_models(RARE_MODEL),
    "refused (2 %), at any depth": _refused,
}


def measure(folder: Path, provider_port: int) -> list[Row]:
    """Measure on SQLite, and on PostgreSQL where the server of the tests is given."""
    random.seed(1)
    rows = _measure_store("SQLite", sqlite_store(provider_port))
    address = os.environ.get(POSTGRESQL)
    if address is None:
        return [*rows, Row(f"   PostgreSQL: {POSTGRESQL} names none", "")]
    with postgresql_store(folder, provider_port, address) as store:
        return [*rows, *_measure_store("PostgreSQL", store)]


def _measure_store(database: str, store: Store) -> list[Row]:
    made = store.made
    note = f"{store.size_bytes / 1e9:.2f} GB, made in {made.made_in_s:.0f} s"
    head = Row(f"S11 {database}, {made.rows:,} requests", "", beside=note)
    with running("product", store.environment, made.secrets) as server:
        organization = asyncio.run(_organization_id(store))
        floor_ms, _ = _p95_ms(server, [{"query": FLOOR}])
        return [head, *_rows(store, server, organization, floor_ms)]


def _rows(store: Store, server: Server, organization: UUID, floor_ms: float) -> Iterator[Row]:
    for name, case in CASES.items():
        asked = [case(store.made, organization) for _ in range(REQUESTS)]
        bodies = [{"query": QUERY, "variables": variables} for variables in asked]
        p95_ms, told = _p95_ms(server, bodies)
        if p95_ms > TARGET_MS:
            plan = asyncio.run(_plan(store, organization, asked[0]))
            told = f"MISSES; {told}; {plan}"
        yield Row(
            f"   p95 {name}",
            f"{p95_ms:.1f} ms",
            f"{floor_ms:.1f} ms",
            f"{p95_ms / floor_ms:.1f}",
            f"<= {TARGET_MS:.0f} ms",
            told,
        )


def _p95_ms(server: Server, bodies: list[Variables]) -> tuple[float, str]:
    """Ask one after the other; the median of the rounds' 95th percentiles."""
    first_s = _ask(server, bodies[0])
    requests = max(REQUESTS_MIN, min(REQUESTS, int(ROUND_S / first_s)))
    load = Load(
        port=server.port,
        path=GRAPHQL_PATH,
        requests=requests,
        connections=1,
        body="",
        bodies=[json.dumps(body) for body in bodies],
        headers={"authorization": f"Bearer {server.secrets.tokens[0]}"},
    )
    results = [send(load) for _ in range(ROUNDS)]
    p95_ms = median_of([percentile(each.last_us, 95) for each in results]) / 1000
    p50_ms = median_of([percentile(each.last_us, 50) for each in results]) / 1000
    return p95_ms, f"p50 {p50_ms:.1f} ms of {requests}"


def _ask(server: Server, body: Variables) -> float:
    """Ask once and fail unless there is a page; gives the seconds it took."""
    request = urllib.request.Request(
        f"http://127.0.0.1:{server.port}{GRAPHQL_PATH}",
        json.dumps(body).encode(),
        {
            "authorization": f"Bearer {server.secrets.tokens[0]}",
            "content-type": "application/json",
        },
    )
    begun = time.perf_counter()
    with urllib.request.urlopen(request) as answer:
        told = json.load(answer)
    found = told.get("data", {}).get("organization") or {}
    if "errors" in told or ("requests" in found and not found["requests"]["nodes"]):
        raise RuntimeError(f"no page: {told}")
    return time.perf_counter() - begun


def _cursor_at(row: int, made: Made) -> str:
    """Name a place that no page has ended at."""
    place = SimpleNamespace(admitted_at_ns=stands_at(row, made), id=UUID(int=0))
    return cursor(cast("DecisionRow", place))


def _key_filter(number: int, organization: UUID) -> Variables:
    return {"filter": {"keyIds": [global_id(NodeKind.KEY, organization, key_uuid(number))]}}


async def _organization_id(store: Store) -> UUID:
    database = Database(_url_of(store))
    async with database.read() as session:
        row = await organization_by_slug(session, "governed")
    await database.aclose()
    assert row is not None
    return row.id


async def _plan(store: Store, organization: UUID, asked: Variables) -> str:
    """Tell how the database finds such a page, on one line."""
    database = Database(_url_of(store))
    statements: list[tuple[str, Any]] = []

    def note(_connection: Any, _cursor: Any, text: str, parameters: Any, *_rest: Any) -> None:
        statements.append((text, parameters))

    event.listen(database._readers.sync_engine, "before_cursor_execute", note)  # noqa: SLF001
    async with database.read() as session:
        wanted = asked.get("filter", {})
        await page_of_requests(
            session,
            organization,
            first=50,
            after=asked.get("after"),
            filter=RequestFilter(
                models=tuple(wanted.get("models", ())),
                decisions=tuple(wanted.get("decisions", ())),
                key_ids=tuple(_id_of(text) for text in wanted.get("keyIds", ())),
            ),
        )
        text, parameters = statements[-1]
        explain = "EXPLAIN QUERY PLAN" if "sqlite" in database.url else "EXPLAIN (COSTS OFF)"
        connection = await session.connection()
        lines = (await connection.exec_driver_sql(f"{explain} {text}", parameters)).all()
    await database.aclose()
    return " / ".join(str(line[-1]).strip() for line in lines)


def _id_of(text: str) -> UUID:
    found = parse_global_id(text)
    assert found is not None
    return found.id


def _url_of(store: Store) -> str:
    named = store.environment["COMPTROLLER_DATABASE_URL"]
    return named or f"sqlite:///{store.environment['COMPTROLLER_DATA_DIR']}/comptroller.sqlite3"
