"""S6 over HTTP: requests with any of a million keys against requests with any of a hundred.

The keys and limits are written straight into the engine of the server: what is measured is what
they cost a request, not how they came there. Records are written as ever; none of their tables
asks whether a key exists. Where any key may ask, thousands of keys of 101 organizations are at
work within seconds. That is most of the difference: of one server, a hundred keys of one
organization cost 206 us a request, any of its keys 224, and any of all keys 236.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from random import Random

from litestar import Litestar

from benchmarks.crowds import LARGE, SMALL, Size, digest_of, drawn_keys, load_keys, load_limits
from benchmarks.installation import environment_of, listening
from benchmarks.load import Load
from benchmarks.processes import send_and_measure
from benchmarks.table import Row, median_of, ratio_of
from comptroller.app import Comptroller, create_app_from_environment
from controlplane.keys.secret import SecretKind, digest, load_or_create_pepper, new_secret

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
SERVERS = ("crowded-small", "crowded-large")
# Which server the requests of each case go to.
CASES = {"small": SERVERS[0], "hot": SERVERS[1], "any": SERVERS[1]}
KEYS_HOT = 100


def measure(folder: Path, provider_port: int) -> list[Row]:
    """Measure both servers in turn, each on the same core."""
    cpu_us: dict[str, list[float]] = {}
    with ExitStack() as stack:
        running = {
            name: stack.enter_context(listening(name, _environment(folder / name, provider_port)))
            for name in SERVERS
        }
        files = _secrets_files(folder)
        for round_number in range(ROUNDS + 1):
            for case, server in CASES.items():
                pid, port = running[server]
                _, each_us = send_and_measure(_load(port, files[case]), pid)
                # The first round warms up.
                if round_number:
                    cpu_us.setdefault(case, []).append(each_us)
    return [
        _row("   a request over HTTP, any of a million keys", cpu_us, "any"),
        _row("   a hundred of the million", cpu_us, "hot"),
    ]


def _row(name: str, cpu_us: dict[str, list[float]], case: str) -> Row:
    ours, floor = cpu_us[case], cpu_us["small"]
    beside = f"{REQUESTS:,} keys drawn; floor: any of 100 keys, 12 limits"
    figure, least = f"{median_of(ours):.1f} us", f"{median_of(floor):.1f} us"
    return Row(name, figure, least, ratio_of(ours, floor), "<= 1.2", beside)


def _environment(folder: Path, provider_port: int) -> dict[str, str]:
    folder.mkdir()
    return environment_of(folder, provider_port)


def _secrets_files(folder: Path) -> dict[str, Path]:
    """Write the secrets of each case's requests."""
    every = _drawn(LARGE)
    hot = Random(6).choices(every[:KEYS_HOT], k=REQUESTS)
    paths = {case: folder / f"{case}.txt" for case in CASES}
    for path, keys in zip(paths.values(), (_drawn(SMALL), hot, every), strict=True):
        path.write_text("\n".join(_secret(*key) for key in keys))
    return paths


def _load(port: int, secrets: Path) -> Load:
    return Load(
        port=port,
        path="/v1/chat/completions",
        requests=REQUESTS,
        connections=CONNECTIONS,
        body=BODY,
        secrets_file=str(secrets),
    )


def create_small() -> Litestar:
    """Make the application with a hundred keys under twelve limits."""
    return _create(SMALL)


def create_large() -> Litestar:
    """Make the application with a million keys under 100,000 limits."""
    return _create(LARGE)


def _create(sizes: Sequence[Size]) -> Litestar:
    app = create_app_from_environment()
    comptroller: Comptroller = app.state.comptroller
    pepper = load_or_create_pepper(comptroller.settings.control.data_dir)
    asked = set(_drawn(sizes))

    def digest_of_key(size: Size, number: int) -> bytes:
        # A secret takes far longer to make than a digest; only those that are sent need one.
        key = (size, number)
        return digest(_secret(*key), pepper) if key in asked else digest_of(*key)

    clock = comptroller.clock
    load_limits(comptroller.engine, sizes, clock.wall_ns(), clock.mono_ns())
    load_keys(comptroller.engine, sizes, digest_of_key)
    # The feed knows nothing of these organizations.
    comptroller.proxy._feed.currencies.update({size.id: "USD" for size in sizes})  # noqa: SLF001
    return app


def _drawn(sizes: Sequence[Size]) -> list[tuple[Size, int]]:
    """Draw the keys of all requests, the same whenever it is asked."""
    return list(drawn_keys(Random(6), sizes, REQUESTS))


def _secret(size: Size, number: int) -> str:
    """Make a key's secret, the same whenever it is asked."""
    return new_secret(SecretKind.LIVE_KEY, Random(f"{size.number}/{number}").randbytes)
