"""S6: a million keys under 100,000 limits against a hundred keys under twelve, in one process.

    python -m benchmarks.scale        measures in this process and prints what it found as JSON

Half of the keys and limits are one organization's, the others those of a hundred; every key is
under twelve limits: four of its member, four of its team, four of its organization. A round
authenticates, admits and settles with keys drawn at random; small and large take turns. Of the
large one a hundred keys are drawn, which shows what its tables cost, and all of them, which
shows what it costs that a million keys and their counters fit into no cache. Memory is what the
process grows by.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random
from uuid import UUID

from benchmarks.admission import limit_form
from benchmarks.table import Row, ratio_of
from core_rs import Engine

WALL_NS = 1_770_000_000_000_000_000
ROUNDS = 7
CALLS = 20_000
# So many requests of an organization run at a time.
OPEN = 50
# As the control plane sends them: small, so that what is read does not count as what is kept.
KEYS_AT_ONCE = 5_000
KEYS_HOT = 100
LIMITS_A_SCOPE = 4
_SHAPES = (
    ("budget", "spend", "hard"),
    ("budget", "spend", "hard"),
    ("breaker", "spend", "metered"),
    ("rate", "requests", "hard"),
)


@dataclass(frozen=True, slots=True)
class Size:
    """One organization: its own limits, its teams' and its members'; keys take turns."""

    number: int
    teams: int
    members: int
    keys: int

    @property
    def id(self) -> str:
        """Its id."""
        return _uuid(self.number, 0)

    @property
    def limits(self) -> int:
        """Limits of all its scopes."""
        return LIMITS_A_SCOPE * (1 + self.teams + self.members)


SMALL = (Size(0, teams=1, members=1, keys=100),)
LARGE = (
    Size(1, teams=2_499, members=10_000, keys=500_000),
    *(Size(number, teams=24, members=100, keys=5_000) for number in range(2, 102)),
)


@dataclass(frozen=True, slots=True)
class Found:
    """Figures of one process: microseconds of CPU by round, bytes, seconds."""

    small_us: list[float]
    hot_us: list[float]
    all_us: list[float]
    key_bytes: float
    limit_bytes: float
    keys_s: float
    limits_s: float
    longest_load_s: float
    edit_s: float


def measure(_folder: Path, _provider_port: int) -> list[Row]:
    """Measure in a process that has done nothing else."""
    command = [sys.executable, "-m", "benchmarks.scale"]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found = Found(**json.loads(output))
    return [
        _time_row("S6 admission, any of a million keys", found.all_us, found, "<= 1.2"),
        _time_row("   a hundred of the million", found.hot_us, found, "<= 1.2"),
        Row("   memory", f"{found.key_bytes:.0f} bytes", target="<= 400 a key"),
        Row("   memory of a limit", f"{found.limit_bytes:.0f} bytes", beside="with its counter"),
        Row("   loading a million keys", f"{found.keys_s:.1f} s"),
        Row(
            "   loading 100,000 limits",
            f"{found.limits_s:.1f} s",
            beside=f"the organization of 50,000: {found.longest_load_s:.2f} s, "
            f"again after an edit {found.edit_s:.2f} s",
        ),
    ]


def _time_row(name: str, ours_us: Sequence[float], found: Found, target: str) -> Row:
    return Row(
        name,
        f"{statistics.median(ours_us):.2f} us",
        f"{statistics.median(found.small_us):.2f} us",
        ratio_of(ours_us, found.small_us),
        target,
        "authenticate, admit, settle; floor: 100 keys, 12 limits",
    )


def find() -> Found:
    """Load both sizes and measure them in turn."""
    small, large = Engine(), Engine()
    _load_limits(small, SMALL)
    _load_keys(small, SMALL)
    base = _resident_bytes()
    limits_s, longest_load_s = _load_limits(large, LARGE)
    with_limits = _resident_bytes()
    keys_s = _load_keys(large, LARGE)
    with_keys = _resident_bytes()
    edit_s = _load_limits(large, LARGE[:1])[0]
    times = _times(small, large)
    return Found(
        *times,
        key_bytes=(with_keys - with_limits) / sum(size.keys for size in LARGE),
        limit_bytes=(with_limits - base) / sum(size.limits for size in LARGE),
        keys_s=keys_s,
        limits_s=limits_s,
        longest_load_s=longest_load_s,
        edit_s=edit_s,
    )


def _load_limits(engine: Engine, sizes: Sequence[Size]) -> tuple[float, float]:
    """Load the policy of each organization; gives the seconds of all and of the longest."""
    spent = []
    for size in sizes:
        snapshot = _snapshot(size)
        begun = time.perf_counter()
        engine.load_organization(snapshot, b"[]", WALL_NS, 0)
        spent.append(time.perf_counter() - begun)
    return sum(spent), max(spent)


def _snapshot(size: Size) -> bytes:
    scopes = [("organization", size.id)]
    scopes += [("team", _uuid(size.number, 1, number)) for number in range(size.teams)]
    scopes += [("member", _uuid(size.number, 2, number)) for number in range(size.members)]
    limits: list[dict[str, object]] = []
    for scope, scope_id in scopes:
        for kind, resource, mode in _SHAPES:
            number = (size.number << 32) + len(limits)
            limits.append(limit_form(number, kind, scope, scope_id, resource, mode))
    snapshot = {
        "organization_id": size.id,
        "state": "active",
        "currency": "USD",
        "version": "0" * 64,
        "limits": limits,
        "models": [],
    }
    return json.dumps(snapshot).encode()


def _load_keys(engine: Engine, sizes: Sequence[Size]) -> float:
    """Load all keys; gives the seconds that the engine took."""
    spent_s = 0.0
    for size in sizes:
        keys = _keys(size)
        while batch := list(itertools.islice(keys, KEYS_AT_ONCE)):
            written = json.dumps(batch).encode()
            begun = time.perf_counter()
            engine.load_keys(written)
            spent_s += time.perf_counter() - begun
    return spent_s


def _keys(size: Size) -> Iterator[dict[str, object]]:
    for number in range(size.keys):
        secret = {"digest": _digest(size, number).hex(), "expires_at_ns": None}
        yield {
            "id": _uuid(size.number, 3, number),
            "organization_id": size.id,
            "team_id": _uuid(size.number, 1, number % size.teams),
            "member_id": _uuid(size.number, 2, number % size.members),
            "cost_center_id": None,
            "state": "active",
            "expires_at_ns": None,
            "secrets": [secret],
        }


def _times(small: Engine, large: Engine) -> tuple[list[float], list[float], list[float]]:
    random = Random(6)
    every = list(_drawn(random, LARGE, CALLS))
    hot = random.choices(every[:KEYS_HOT], k=CALLS)
    few = list(_drawn(random, SMALL, CALLS))
    # A digest of its own for each call, so that the lists alike fit into no cache.
    cases = [
        (engine, [_digest(size, number) for size, number in drawn])
        for engine, drawn in ((small, few), (large, hot), (large, every))
    ]
    times: list[list[float]] = [[] for _ in cases]
    for round_number in range(ROUNDS + 1):
        for (engine, digests), spent in zip(cases, times, strict=True):
            random.shuffle(digests)
            each_us = _round_us(engine, digests, round_number)
            # The first round warms up.
            if round_number:
                spent.append(each_us)
    return times[0], times[1], times[2]


def _drawn(random: Random, sizes: Sequence[Size], count: int) -> Iterator[tuple[Size, int]]:
    for size in random.choices(sizes, [size.keys for size in sizes], k=count):
        yield size, random.randrange(size.keys)


def _round_us(engine: Engine, digests: Sequence[bytes], round_number: int) -> float:
    """Run `CALLS` requests, `OPEN` at a time; gives CPU microseconds of each."""
    at_ns = round_number * 1_000_000_000
    ids = iter(range(round_number * CALLS + 1, (round_number + 1) * CALLS + 1))
    turns = [digests[first : first + OPEN] for first in range(0, CALLS, OPEN)]
    begun = time.process_time_ns()
    for turn in turns:
        opened = [_admitted(engine, digest, next(ids), at_ns) for digest in turn]
        for organization, reservation in opened:
            settled = engine.settle(organization, reservation, 900, 90, WALL_NS, at_ns)
            engine.booked_through(organization, settled.seq)
    return (time.process_time_ns() - begun) / CALLS / 1_000


def _admitted(engine: Engine, digest: bytes, number: int, at_ns: int) -> tuple[int, bytes]:
    principal = engine.authenticate(digest, WALL_NS)
    assert principal is not None
    reservation = number.to_bytes(16, "big")
    engine.admit(principal.key, reservation, 1_000, 100, "m", "p", WALL_NS, at_ns)
    return principal.organization, reservation


def _digest(size: Size, number: int) -> bytes:
    return hashlib.sha256(f"{size.number}/{number}".encode()).digest()


def _uuid(organization: int, kind: int, number: int = 0) -> str:
    return str(UUID(int=((organization + 1) << 64) + (kind << 32) + number + 1))


def _resident_bytes() -> int:
    status = Path("/proc/self/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmRSS:"))
    return int(line.split()[1]) * 1024


if __name__ == "__main__":
    print(json.dumps(asdict(find())))
