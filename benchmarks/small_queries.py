"""S11: small queries through our POST handler and through Strawberry's Litestar controller."""

from __future__ import annotations

import json
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from benchmarks import stock
from benchmarks.installation import Server, servers
from benchmarks.load import Load, Result
from benchmarks.processes import send_and_measure
from benchmarks.table import Row, median_of, percentile, ratio_of
from controlplane.routes import GRAPHQL_PATH

ROUNDS = 3
REQUESTS = 1_500
CONNECTIONS = 16
_TEAMS = """
    { viewer { user { email } } organization(slug: "governed") { teams { nodes { slug } } } }
"""


@dataclass(frozen=True, slots=True)
class Case:
    """One query and where it is sent: to our handler and to the peer."""

    name: str
    query: str
    ours: str = GRAPHQL_PATH
    stock: str = stock.PATH


# All but the last find out in the database who asks, on either side: that is most of their cost.
CASES = (
    Case("S11 small query: viewer, teams", _TEAMS),
    Case("   a query that reads nothing", "{ __typename }"),
    Case("   handlers alone, callers known", "{ __typename }", stock.OURS_KNOWN, stock.STOCK_KNOWN),
)
TARGET = ">= 2"


def measure(folder: Path, provider_port: int) -> list[Row]:
    """Measure both in turn, in one process of the server."""
    with servers(folder, provider_port, ("stock",)) as running:
        return [_row(case, running["stock"]) for case in CASES]


def _row(case: Case, server: Server) -> Row:
    paths = {"ours": case.ours, "stock": case.stock}
    _expect_equal_answers(server, case)
    cpu_us: dict[str, list[float]] = {kind: [] for kind in paths}
    rates: dict[str, list[float]] = {kind: [] for kind in paths}
    last: dict[str, Result] = {}
    for round_number in range(ROUNDS + 1):
        for kind, path in paths.items():
            load = _load(server, path, case.query, REQUESTS if round_number else REQUESTS // 5)
            last[kind], each_us = send_and_measure(load, server.pid)
            # The first round warms up.
            if round_number:
                cpu_us[kind].append(each_us)
                rates[kind].append(load.requests / last[kind].wall_s)
    ours, theirs = (f"{median_of(cpu_us[kind]):.0f}" for kind in paths)
    return Row(
        case.name,
        f"{median_of(rates['ours']):,.0f}/s",
        f"{median_of(rates['stock']):,.0f}/s",
        ratio_of(rates["ours"], rates["stock"]),
        TARGET,
        f"CPU {ours} and {theirs} µs; p99 {_p99(last['ours'])} and {_p99(last['stock'])} ms",
    )


def _p99(result: Result) -> str:
    return f"{percentile(result.last_us, 99) / 1000:.1f}"


def _load(server: Server, path: str, query: str, requests: int) -> Load:
    return Load(
        port=server.port,
        path=path,
        requests=requests,
        connections=CONNECTIONS,
        body=json.dumps({"query": query}),
        headers={"authorization": f"Bearer {server.secrets.tokens[0]}"},
    )


def _expect_equal_answers(server: Server, case: Case) -> None:
    """Fail before measuring when either answers anything but the data asked for."""
    ours, theirs = (_data(server, path, case.query) for path in (case.ours, case.stock))
    if ours is None or ours != theirs:
        raise RuntimeError(f"answers differ: {ours} and {theirs}")


def _data(server: Server, path: str, query: str) -> dict[str, object] | None:
    request = urllib.request.Request(
        f"http://127.0.0.1:{server.port}{path}",
        json.dumps({"query": query}).encode(),
        {
            "authorization": f"Bearer {server.secrets.tokens[0]}",
            "content-type": "application/json",
        },
    )
    with urllib.request.urlopen(request) as answer:
        body = json.load(answer)
    return None if "errors" in body else body["data"]
