"""S6: a million keys under 100,000 limits against a hundred keys under twelve, in one process.

    python -m benchmarks.scale        measures in this process and prints what it found as JSON

A round authenticates, admits and settles with keys drawn at random; small and large take turns. Of
the large one a hundred keys are drawn, which shows what its tables cost, and all of them, which
shows what it costs that a million keys and their counters fit into no cache. That is a constant
of a few microseconds: `crowded` shows it beside all else that a request costs, over HTTP. Memory
is what the process grows by.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random

from benchmarks import crowded
from benchmarks.admission import ask
from benchmarks.crowds import LARGE, SMALL, digest_of, drawn_keys, load_keys, load_limits
from benchmarks.table import Row, ratio_of
from core_rs import Engine

WALL_NS = 1_770_000_000_000_000_000
ROUNDS = 7
CALLS = 20_000
# So many requests of an organization run at a time.
OPEN = 50
KEYS_HOT = 100


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


def measure(folder: Path, provider_port: int) -> list[Row]:
    """Measure in a process that has done nothing else, then over HTTP."""
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
        *crowded.measure(folder, provider_port),
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
    load_limits(small, SMALL, WALL_NS)
    load_keys(small, SMALL)
    base = _resident_bytes()
    limits_s, longest_load_s = load_limits(large, LARGE, WALL_NS)
    with_limits = _resident_bytes()
    keys_s = load_keys(large, LARGE)
    with_keys = _resident_bytes()
    edit_s = load_limits(large, LARGE[:1], WALL_NS)[0]
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


def _times(small: Engine, large: Engine) -> tuple[list[float], list[float], list[float]]:
    random = Random(6)
    every = list(drawn_keys(random, LARGE, CALLS))
    hot = random.choices(every[:KEYS_HOT], k=CALLS)
    few = list(drawn_keys(random, SMALL, CALLS))
    # A digest of its own for each call, so that the lists alike fit into no cache.
    cases = [
        (engine, [digest_of(size, number) for size, number in drawn])
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


def _round_us(engine: Engine, digests: Sequence[bytes], round_number: int) -> float:
    """Run `CALLS` requests, `OPEN` at a time; gives CPU microseconds of each."""
    at_ns = round_number * 1_000_000_000
    ids = iter(range(round_number * CALLS + 1, (round_number + 1) * CALLS + 1))
    turns = [digests[first : first + OPEN] for first in range(0, CALLS, OPEN)]
    begun = time.process_time_ns()
    for turn in turns:
        opened = [_admitted(engine, digest, next(ids), at_ns) for digest in turn]
        for organization, reservation in opened:
            settled = engine.settle(organization, reservation, 900, 90, None, WALL_NS, at_ns)
            engine.booked_through(organization, settled.seq)
    return (time.process_time_ns() - begun) / CALLS / 1_000


def _admitted(engine: Engine, digest: bytes, number: int, at_ns: int) -> tuple[int, bytes]:
    principal = engine.authenticate(digest, WALL_NS)
    assert principal is not None
    reservation = number.to_bytes(16, "big")
    engine.admit(principal.key, reservation, ask(), WALL_NS, at_ns)
    return principal.organization, reservation


def _resident_bytes() -> int:
    status = Path("/proc/self/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmRSS:"))
    return int(line.split()[1]) * 1024


if __name__ == "__main__":
    print(json.dumps(asdict(find())))
