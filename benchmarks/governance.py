"""S1 and S4: what a governed request costs the server, against an echo and against itself."""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks.installation import Server, servers
from benchmarks.load import Load, Result
from benchmarks.processes import send_and_measure
from benchmarks.table import Row, median_of, percentile, ratio_of

ROUNDS = 3
REQUESTS = 8_000
CONNECTIONS = 32
BODY = json.dumps(
    {
        "model": "answers",
        "messages": [{"role": "user", "content": "word " * 180}],
        "max_tokens": 1_000,
    }
)
Figures = dict[str, list[float]]


def measure(folder: Path, provider_port: int) -> list[Row]:
    """Measure in rounds over all variants, so that the machine's moods hit each alike."""
    cpu_us: Figures = {}
    last: dict[str, Result] = {}
    with servers(folder, provider_port) as running:
        for round_number in range(ROUNDS + 1):
            for name, (server, key) in _variants(running).items():
                result, each_us = send_and_measure(_load(server, key, round_number), server.pid)
                # The first round warms up.
                if round_number:
                    cpu_us.setdefault(name, []).append(each_us)
                    last[name] = result
    return _rows(cpu_us, last)


def _variants(running: dict[str, Server]) -> dict[str, tuple[Server, str]]:
    floor, bare, product = running["floor"], running["unrecorded"], running["product"]
    return {
        "floor": (floor, ""),
        "bare": (bare, bare.secrets.free),
        "limits": (bare, bare.secrets.governed),
        "records": (product, product.secrets.free),
        "governed": (product, product.secrets.governed),
    }


def _load(server: Server, key: str, round_number: int) -> Load:
    return Load(
        port=server.port,
        path="/v1/chat/completions" if key else "/json",
        requests=REQUESTS if round_number else REQUESTS // 5,
        connections=CONNECTIONS,
        body=BODY,
        headers={"authorization": f"Bearer {key}"},
    )


def _rows(cpu_us: Figures, last: dict[str, Result]) -> list[Row]:
    names = (
        ("S1 governed request: 12 limits, record", "governed", "floor", "<= 3.3, goal 2.5"),
        ("   of it the proxy alone", "bare", "floor", ""),
        ("S4 governance: limits and record", "governed", "bare", "<= 1.3, goal 1.15"),
        ("   limits alone", "limits", "bare", ""),
        ("   records alone", "records", "bare", ""),
    )
    return [
        Row(
            name,
            f"{median_of(cpu_us[ours]):.1f}",
            f"{median_of(cpu_us[floor]):.1f}",
            ratio_of(cpu_us[ours], cpu_us[floor]),
            target,
            _latency(last[ours]),
        )
        for name, ours, floor, target in names
    ]


def _latency(result: Result) -> str:
    p50, p99 = (percentile(result.last_us, percent) / 1000 for percent in (50, 99))
    rate = result.requests / result.wall_s
    return f"p50 {p50:.1f} ms  p99 {p99:.1f} ms at {rate:,.0f}/s"
