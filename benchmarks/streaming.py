"""S7: what a chunk of a stream costs the server, and what the proxy adds before the first."""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks.installation import STREAM_PACE_MS, Server, servers
from benchmarks.load import Load
from benchmarks.processes import send, send_and_measure
from benchmarks.provider import CHUNKS
from benchmarks.table import Row, median_of, percentile, ratio_of

ROUNDS = 3
STREAMS_AT_ONCE = 64
STREAMS = 128
FIRST_BYTES = 40
BODY = json.dumps(
    {
        "model": "streams",
        "messages": [{"role": "user", "content": "word " * 180}],
        "max_tokens": 1_000,
        "stream": True,
    }
)


def measure(folder: Path, provider_port: int) -> list[Row]:
    """Measure the product, the paced floor and the floor without pace, in rounds."""
    paced = f"/sse/{STREAM_PACE_MS}"
    with servers(folder, provider_port, ("floor", "product")) as running:
        floor, product = running["floor"], running["product"]
        variants = {
            "product": (product, "/v1/chat/completions"),
            "paced": (floor, paced),
            "at once": (floor, "/sse/0"),
        }
        chunk_us: dict[str, list[float]] = {name: [] for name in variants}
        for round_number in range(ROUNDS + 1):
            for name, (server, path) in variants.items():
                _, each_us = send_and_measure(_load(server, path), server.pid)
                if round_number:
                    chunk_us[name].append(each_us / CHUNKS)
        added_ms = _added_ms(product, provider_port, paced)
    return [
        _row("S7 a chunk, floor at the same pace", chunk_us, "paced", "<= 2.3, goal 2"),
        _row("   a chunk, floor without pauses", chunk_us, "at once", ""),
        Row("   added before the first byte, 1 client", f"{added_ms:.2f} ms", "", "", "<= 0.5 ms"),
    ]


def _row(name: str, chunk_us: dict[str, list[float]], floor: str, target: str) -> Row:
    ours, floors = chunk_us["product"], chunk_us[floor]
    return Row(
        name,
        f"{median_of(ours):.1f}",
        f"{median_of(floors):.1f}",
        ratio_of(ours, floors),
        target,
        f"{STREAMS_AT_ONCE} streams, a chunk each {STREAM_PACE_MS} ms",
    )


def _added_ms(product: Server, provider_port: int, paced: str) -> float:
    through = _load(product, "/v1/chat/completions", 1, FIRST_BYTES)
    direct = Load(
        port=provider_port,
        path=paced + "/chat/completions",
        requests=FIRST_BYTES,
        connections=1,
        body=BODY,
    )
    first_us = [percentile(send(load).first_us, 50) for load in (through, direct)]
    return (first_us[0] - first_us[1]) / 1000


def _load(
    server: Server, path: str, connections: int = STREAMS_AT_ONCE, count: int = STREAMS
) -> Load:
    return Load(
        port=server.port,
        path=path,
        requests=count,
        connections=connections,
        body=BODY,
        headers={"authorization": f"Bearer {server.secrets.governed}"},
    )
