"""S5: one admission over twelve limits, called from Python, beside the cheapest call there is."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable
from uuid import UUID

from core_rs import Engine

ROUNDS = 7
CALLS = 20_000
TARGET_US = 2.0
WALL_NS = 1_770_000_000_000_000_000

ORGANIZATION, TEAM, MEMBER, KEY = (str(UUID(int=number)) for number in range(1, 5))


def measure() -> str:
    """Print what an admission with its settlement costs, and what a call without work costs."""
    engine = loaded_engine()
    principal = engine.authenticate(bytes(32), WALL_NS)
    assert principal is not None
    floor_us = _median_us(lambda _: engine.organization_index(ORGANIZATION))
    pair_us = _median_us(_admit_and_settle(engine, principal.key, principal.organization))
    return (
        f"S5  admit and settle over 12 limits  {pair_us:6.2f} us   floor (empty call) "
        f"{floor_us:5.2f} us   ratio {pair_us / floor_us:5.1f}   target for admit alone "
        f"<= {TARGET_US} us"
    )


def loaded_engine() -> Engine:
    """Make an engine with one key under twelve limits that never refuse."""
    engine = Engine()
    limits = [
        _limit(number, *shape)
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
        "models": [],
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


def _limit(number: int, kind: str, scope: str, scope_id: str, resource: str, mode: str) -> dict:
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


def _admit_and_settle(engine: Engine, key: int, organization: int) -> Callable[[int], object]:
    numbers = iter(range(1, 2**62))

    def pair(mono_ns: int) -> None:
        reservation = next(numbers).to_bytes(16, "big")
        engine.admit(key, reservation, 1_000, 100, "m", "p", WALL_NS, mono_ns)
        settled = engine.settle(organization, reservation, 900, 90, WALL_NS, mono_ns)
        engine.booked_through(organization, settled.seq)

    return pair


def _median_us(call: Callable[[int], object]) -> float:
    figures = []
    for _ in range(ROUNDS):
        started = time.process_time_ns()
        for number in range(CALLS):
            call(number)
        figures.append((time.process_time_ns() - started) / CALLS / 1_000)
    return statistics.median(figures)
