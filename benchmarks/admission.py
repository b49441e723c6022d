"""S5: one admission over twelve limits, called from Python, beside the cheapest call there is.

What is asked for is written anew for each admission, as the proxy does, and counts as part of it.

The engine alone is measured by `core_rs/engine/examples/admit_cost.rs`, where cargo is.
"""

from __future__ import annotations

import json
import re
import shutil
import statistics
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from uuid import UUID

from benchmarks.table import Row
from core_rs import Ask, Engine

ROUNDS = 7
CALLS = 20_000
# So many requests of an organization run at a time; a clock is read once for all of them.
OPEN = 50
WALL_NS = 1_770_000_000_000_000_000

ORGANIZATION, TEAM, MEMBER, KEY = (str(UUID(int=number)) for number in range(1, 5))


def measure(_folder: Path, _provider_port: int) -> list[Row]:
    """Measure admission with its settlement, admission alone, and a call without work."""
    engine = loaded_engine()
    principal = engine.authenticate(bytes(32), WALL_NS)
    assert principal is not None
    key, organization = principal.key, principal.organization
    floor_us = _median_us(lambda _: engine.organization_index(ORGANIZATION))
    admit_us, settle_us = _pair_us(engine, key, organization)
    return [
        _row("S5 admit, called from Python", admit_us, floor_us, "<= 2 us"),
        _row("   settle and acknowledge", settle_us, floor_us, ""),
        *_engine_alone(),
    ]


def _row(name: str, ours_us: float, floor_us: float, target: str) -> Row:
    beside = "floor: a call without work"
    ratio = f"{ours_us / floor_us:.1f}"
    return Row(name, f"{ours_us:.2f}", f"{floor_us:.2f}", ratio, target, beside)


def _engine_alone() -> list[Row]:
    cargo = shutil.which("cargo")
    if cargo is None:
        return [Row("   engine alone", "no cargo", target="<= 0.5 us")]
    command = [cargo, "run", "-q", "--release", "-p", "comptroller-engine", "--example"]
    output = subprocess.run([*command, "admit_cost"], capture_output=True, text=True, check=True)
    return [
        Row(f"   engine alone, {line.split(' ', 1)[0]}", f"{int(nanos) / 1000:.2f}", target=target)
        # The first two lines are of one request; those after them of a thousand that wait.
        for line, target in zip(output.stdout.splitlines()[:2], ("<= 0.5 us", ""), strict=True)
        for nanos in re.findall(r": *(\d+) ns", line)
    ]


def loaded_engine() -> Engine:
    """Make an engine with one key under twelve limits that never refuse."""
    engine = Engine()
    limits = [
        limit_form(number, *shape)
        for number, shape in enumerate(
            [
                *(
                    ("budget", kind, scope, "spend", "hard")
                    for kind, scope in _SCOPES
                    for _ in "ab"
                ),
                *(("breaker", kind, scope, "spend", "metered") for kind, scope in _SCOPES[1:]),
                ("rate", "key", KEY, "requests", "hard"),
            ]
        )
    ]
    snapshot = {
        "organization_id": ORGANIZATION,
        "state": "active",
        "currency": "USD",
        "version": "0" * 64,
        "limits": limits,
        "rules": [],
    }
    engine.load_organization(json.dumps(snapshot).encode(), b"[]", WALL_NS, 0)
    key = {
        "id": KEY,
        "organization_id": ORGANIZATION,
        "team_id": TEAM,
        "member_id": MEMBER,
        "state": "active",
        "expires_at_ns": None,
        "secrets": [{"digest": "0" * 64, "expires_at_ns": None}],
    }
    engine.load_keys(json.dumps([key]).encode())
    return engine


_SCOPES = (("key", KEY), ("member", MEMBER), ("team", TEAM), ("organization", ORGANIZATION))


def limit_form(
    number: int, kind: str, scope: str, scope_id: str, resource: str, mode: str
) -> dict[str, object]:
    """Write a limit that never refuses as policy snapshots have it; a budget's period by number."""
    rolling = {"kind": "rolling", "seconds": 60}
    calendar = {"kind": "calendar", "period": "month" if number % 2 else "day", "time_zone": "UTC"}
    return {
        "id": str(UUID(int=100 + number)),
        "kind": kind,
        "scope": {"kind": scope, "id": scope_id},
        "where": None,
        "resource": resource,
        "window": calendar if kind == "budget" else rolling,
        "cap": 2**62,
        "mode": mode,
        "hold": "bound",
    }


def ask() -> Ask:
    """Ask for a request of a hundred tokens that costs 1,000 nano units at most."""
    return Ask(
        model="m",
        provider="p",
        input_tokens=50,
        output_tokens_max=50,
        bound_nanos=1_000,
        input_nanos=500,
        output_picos=10_000,
    )


def _pair_us(engine: Engine, key: int, organization: int) -> tuple[float, float]:
    """Measure admissions and settlements apart, with `OPEN` requests open at a time."""
    ids = iter(range(1, 2**62))
    admits, settles = [], []
    for round_number in range(ROUNDS):
        at_ns = round_number * 1_000_000_000
        admit_ns = settle_ns = 0
        for _ in range(CALLS // OPEN):
            reservations = [next(ids).to_bytes(16, "big") for _ in range(OPEN)]
            begun = time.perf_counter_ns()
            for reservation in reservations:
                engine.admit(key, reservation, ask(), WALL_NS, at_ns)
            middle = time.perf_counter_ns()
            for reservation in reservations:
                settled = engine.settle(organization, reservation, 900, 90, None, WALL_NS, at_ns)
                engine.booked_through(organization, settled.seq)
            settle_ns += time.perf_counter_ns() - middle
            admit_ns += middle - begun
        admits.append(admit_ns / CALLS / 1_000)
        settles.append(settle_ns / CALLS / 1_000)
    return statistics.median(admits), statistics.median(settles)


def _median_us(call: Callable[[int], object]) -> float:
    figures = []
    for _ in range(ROUNDS):
        started = time.process_time_ns()
        for number in range(CALLS):
            call(number)
        figures.append((time.process_time_ns() - started) / CALLS / 1_000)
    return statistics.median(figures)
