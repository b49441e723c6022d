"""The embedded shape: what the proxy's callers notice when people look at dashboards."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from benchmarks.dashboard import Watch, Watched
from benchmarks.governance import BODY, CONNECTIONS
from benchmarks.installation import Server, global_organization_id, servers
from benchmarks.load import Load
from benchmarks.processes import OTHER_CORE, pinned, send, send_and_measure
from benchmarks.table import Row, median_of, percentile, ratio_of

ROUNDS = 3
# Of what the server does when it does nothing else. One request after the other is cheaper than
# the same at a fixed rate: at 60 % the core is 80 % busy, and what is in its way for 10 ms queues
# for five times as long.
SHARE_OF_CAPACITY = 0.3
CAPACITY_REQUESTS = 4_000
SECONDS = 8.0
TARGET = "<= 2"
# Whether dashboards look, and whether they poll too.
VARIANTS = {"without": None, "subscribed": False, "polled": True}
Figures = dict[str, list[float]]


def measure(folder: Path, provider_port: int) -> list[Row]:
    """Measure at the same fixed rate, in rounds over all variants."""
    p99_ms: Figures = {name: [] for name in VARIANTS}
    cpu_us: Figures = {name: [] for name in VARIANTS}
    got: dict[str, str] = {"without": ""}
    with servers(folder, provider_port, ("product",)) as running:
        server = running["product"]
        organization = global_organization_id(folder / "product" / "comptroller.sqlite3")
        per_s = _capacity(server) * SHARE_OF_CAPACITY
        for _ in range(ROUNDS):
            for name, is_polling in VARIANTS.items():
                with _dashboards(server, organization, is_polling=is_polling) as told:
                    result, each_us = send_and_measure(_paced(server, per_s), server.pid)
                p99_ms[name].append(percentile(result.last_us, 99) / 1000)
                cpu_us[name].append(each_us)
                got[name] = ", ".join(told)
    note = f"at {per_s:,.0f}/s, {SHARE_OF_CAPACITY:.0%} of capacity"
    return [
        _row("   p99 ms, two dashboards subscribed", p99_ms, "subscribed", "", got["subscribed"]),
        _row("S11 p99 ms, they poll each second too", p99_ms, "polled", TARGET, got["polled"]),
        _row("   CPU µs a request, subscribed", cpu_us, "subscribed", "", note),
        _row("   CPU µs a request, they poll too", cpu_us, "polled", TARGET, note),
    ]


def _row(name: str, figures: Figures, variant: str, target: str, beside: str) -> Row:
    with_them, without = figures[variant], figures["without"]
    return Row(
        name,
        f"{median_of(with_them):.1f}",
        f"{median_of(without):.1f}",
        ratio_of(with_them, without),
        target,
        beside,
    )


@contextmanager
def _dashboards(
    server: Server, organization: str, *, is_polling: bool | None
) -> Iterator[list[str]]:
    """Run two dashboards of two people beside the load; says at the end what they got."""
    told: list[str] = []
    if is_polling is None:
        yield told
        return
    task = Watch(
        port=server.port,
        tokens=list(server.secrets.tokens),
        organization=organization,
        seconds=SECONDS,
        is_polling=is_polling,
    )
    argument = msgspec.json.encode(task).decode()
    with pinned("benchmarks.dashboard", argument, core=OTHER_CORE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield told
        got = msgspec.json.decode(process.communicate()[0], type=Watched)
    told += [f"{got.polls} polls", f"{got.snapshots} snapshots", f"{got.batches} batches"]


def _capacity(server: Server) -> float:
    """Tell how many requests a second are answered when each follows the other."""
    load = _paced(server, 0)
    send(msgspec.structs.replace(load, requests=CAPACITY_REQUESTS // 4))
    result = send(msgspec.structs.replace(load, requests=CAPACITY_REQUESTS))
    return CAPACITY_REQUESTS / result.wall_s


def _paced(server: Server, per_s: float) -> Load:
    return Load(
        port=server.port,
        path="/v1/chat/completions",
        requests=int(per_s * SECONDS),
        connections=CONNECTIONS * 2,
        body=BODY,
        headers={"authorization": f"Bearer {server.secrets.governed}"},
        per_s=per_s,
    )
