"""S15: how long after its settlement a request is in the snapshots that subscribers get."""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import Sequence
from contextlib import closing, suppress
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

from benchmarks.governance import BODY
from benchmarks.installation import Server, global_organization_id, servers
from benchmarks.load import Load
from benchmarks.processes import OTHER_CORE, send
from benchmarks.subscribing import subscribed, take_all
from benchmarks.table import Row, median_of, percentile
from controlplane.live.graphql import INTERVAL_MS_DEFAULT, INTERVAL_MS_MIN, TAIL_INTERVAL_S

ROUNDS = 3
# No divisor or multiple of an interval, so that settlements fall anywhere between snapshots.
PER_S = 37.0
REQUESTS = 400
CONNECTIONS = 8
AFTERWARDS_S = 1.5
INTERVALS_MS = (INTERVAL_MS_DEFAULT, INTERVAL_MS_MIN)
TARGET = "<= 1 s (p99)"
# By the name of a subscription, when what came and what it showed.
Seen = dict[str, list[tuple[int, Any]]]
Delays = dict[str, list[float]]


def measure(folder: Path, provider_port: int) -> list[Row]:
    """Measure through the proxy, with all subscriptions on one socket."""
    with servers(folder, provider_port, ("product",)) as running:
        file = folder / "product" / "comptroller.sqlite3"
        organization = global_organization_id(file)
        rounds = [_round(running["product"], file, organization) for _ in range(ROUNDS)]
    return [
        *(_row(f"S15 settled -> liveSpend, {ms} ms", str(ms), ms, rounds) for ms in INTERVALS_MS),
        _row("    settled -> requestLog", "log", int(TAIL_INTERVAL_S * 1000), rounds),
    ]


def _row(name: str, subscription: str, interval_ms: int, rounds: Sequence[Delays]) -> Row:
    p50, p95, p99 = (
        median_of([percentile(sorted(each[subscription]), percent) for each in rounds])
        for percent in (50, 95, 99)
    )
    return Row(
        name,
        f"{p99:.0f} ms",
        f"{interval_ms} ms",
        f"{p99 / interval_ms:.2f}",
        TARGET,
        f"p50 {p50:.0f} ms  p95 {p95:.0f} ms at {PER_S:.0f} requests/s; floor: the interval",
    )


def _round(server: Server, file: Path, organization: str) -> Delays:
    before = _entries(file)
    seen = asyncio.run(_watch(server, organization))
    entries = _entries(file)
    delays: Delays = {
        name: _delays_of_sums(entries, len(before), shown)
        for name, shown in seen.items()
        if name != "log"
    }
    delays["log"] = _delays_of_ids(entries[len(before) :], seen["log"])
    for name, found in delays.items():
        if len(found) != REQUESTS:
            raise RuntimeError(f"{name} showed {len(found)} of {REQUESTS} requests")
    return delays


def _delays_of_sums(
    entries: Sequence[tuple[int, int, UUID]], known: int, shown: Sequence[tuple[int, Any]]
) -> list[float]:
    """Tell for each settlement when a sum came that holds it, and all before it."""
    delays, due = [], 0
    waiting = list(entries)
    for came_ns, sum_nanos in shown:
        while waiting and due + waiting[0][1] <= sum_nanos:
            settled_ns, charge_nanos, _ = waiting.pop(0)
            due += charge_nanos
            delays.append((came_ns - settled_ns) / 1e6)
    return delays[known:]


def _delays_of_ids(
    entries: Sequence[tuple[int, int, UUID]], shown: Sequence[tuple[int, Any]]
) -> list[float]:
    came = {request_id: came_ns for came_ns, ids in shown for request_id in ids}
    return [(came[each] - at_ns) / 1e6 for at_ns, _, each in entries if each in came]


async def _watch(server: Server, organization: str) -> Seen:
    """Subscribe, send the requests, wait for the last snapshots."""
    os.sched_setaffinity(0, {OTHER_CORE})
    seen: Seen = {name: [] for name in _queries(organization)}

    def take(name: str, data: dict[str, Any], came_ns: int) -> None:
        if name == "log":
            ids = [
                UUID(each["requestId"].removeprefix("req_"))
                for each in data["requestLog"]["requests"]
            ]
            seen[name].append((came_ns, ids))
        else:
            hour = Decimal(data["liveSpend"]["scopes"][0]["lastHour"])
            seen[name].append((came_ns, int(hour * 10**9)))

    token = server.secrets.tokens[0]
    async with subscribed(server.port, token, _queries(organization)) as socket:
        taking = asyncio.create_task(take_all(socket, take))
        await asyncio.sleep(AFTERWARDS_S)
        await asyncio.to_thread(send, _load(server))
        await asyncio.sleep(AFTERWARDS_S)
        taking.cancel()
        with suppress(asyncio.CancelledError):
            await taking
    return seen


def _queries(organization: str) -> dict[str, str]:
    spend = {
        str(ms): f'subscription {{ liveSpend(organizationId: "{organization}", intervalMs: {ms}) '
        "{ seq scopes { lastHour } } }"
        for ms in INTERVALS_MS
    }
    log = f'subscription {{ requestLog(organizationId: "{organization}") '
    return {**spend, "log": log + "{ requests { requestId } dropped } }"}


def _load(server: Server) -> Load:
    return Load(
        port=server.port,
        path="/v1/chat/completions",
        requests=REQUESTS,
        connections=CONNECTIONS,
        body=BODY,
        headers={"authorization": f"Bearer {server.secrets.governed}"},
        per_s=PER_S,
    )


def _entries(file: Path) -> list[tuple[int, int, UUID]]:
    """Read when each request was settled, what was booked, and its id."""
    query = "SELECT settled_at_ns, charge_nanos, id FROM ledger_entries ORDER BY settled_at_ns"
    with closing(sqlite3.connect(file)) as database:
        return [(at_ns, nanos, UUID(text)) for at_ns, nanos, text in database.execute(query)]
