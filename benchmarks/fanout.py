"""S11: snapshots to a hundred listeners a second, by our fan-out and by Strawberry's handler."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from benchmarks import stock
from benchmarks.fanout_server import OURS
from benchmarks.fanout_sockets import Result, Task
from benchmarks.installation import Server, environment_of, servers
from benchmarks.processes import OTHER_CORE, SERVER_CORE, SETTLE_S, cpu_us, pinned
from benchmarks.table import Row, median_of, ratio_of

ROUNDS = 3
LISTENERS = 100
# The peer takes about ten times as long for each.
TICKS = {OURS: 600, stock.PATH: 60}
TARGET = ">= 40,000/s"
# The rate of a round by the server's CPU time, and what is to be said beside it.
Outcome = tuple[float, str]
Run = Callable[[Task], Outcome]


def measure(folder: Path, provider_port: int) -> list[Row]:
    """Measure in process first, then over sockets; both handlers in turn in each round."""
    with servers(folder, provider_port, ("fanout",)) as running:
        server = running["fanout"]
        inside = environment_of(folder / "fanout", provider_port)
        return [
            _row("S11 deliveries/s, nothing sent", server, lambda task: _inside(task, inside)),
            _row("   deliveries/s over sockets", server, lambda task: _sockets(task, server)),
        ]


def _row(name: str, server: Server, run: Run) -> Row:
    rates: dict[str, list[float]] = {path: [] for path in TICKS}
    beside: dict[str, str] = {}
    for round_number in range(ROUNDS):
        for path, ticks in TICKS.items():
            task = Task(
                path=path,
                token=server.secrets.tokens[0],
                name=f"{path}-{round_number}",
                listeners=LISTENERS,
                ticks=ticks,
                shared=path == OURS,
                port=server.port,
            )
            rate, beside[path] = run(task)
            rates[path].append(rate)
    ours, theirs = rates[OURS], rates[stock.PATH]
    return Row(
        name,
        f"{median_of(ours):,.0f}",
        f"{median_of(theirs):,.0f}",
        ratio_of(ours, theirs),
        TARGET,
        f"a second of the server's CPU; {beside[OURS]}",
    )


def _inside(task: Task, environment: dict[str, str]) -> Outcome:
    result = _result_of("benchmarks.fanout_inside", task, SERVER_CORE, environment)
    deliveries = task.listeners * task.ticks
    return deliveries / result.cpu_s, f"{deliveries / result.wall_s:,.0f}/s by the wall clock"


def _sockets(task: Task, server: Server) -> Outcome:
    before_us = cpu_us(server.pid)
    result = _result_of("benchmarks.fanout_sockets", task, OTHER_CORE, {})
    # Its connections are let go of before the next round, which may not be refused for them.
    time.sleep(SETTLE_S)
    each_us = (cpu_us(server.pid) - before_us) / (task.listeners * task.ticks)
    rate = task.listeners * task.ticks / result.wall_s
    busy = (rate * each_us / 1e6, result.cpu_s / result.wall_s)
    told = "server {:.0%} and client {:.0%} busy".format(*busy)
    return 1e6 / each_us, f"{rate:,.0f}/s by the wall clock, {told}"


def _result_of(module: str, task: Task, core: int, environment: dict[str, str]) -> Result:
    argument = msgspec.json.encode(task).decode()
    with pinned(module, argument, core=core, environment=environment) as process:
        output, _ = process.communicate()
    return msgspec.json.decode(output, type=Result)
