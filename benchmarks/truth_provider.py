"""The simulated provider in a process of its own, and what it says of its bill.

python -m benchmarks.truth_provider        prints its port, serves until it is ended
"""

from __future__ import annotations

import asyncio
import json
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import uvloop

from benchmarks.processes import OTHER_CORE, pinned
from comptroller.simulator import SimulatorSettings, simulator

# All requests of a run: when each arrived is part of what is measured.
REQUESTS_KEPT_MAX = 200_000
ANSWER_TIMEOUT_S = 120
# What the proxy tells the provider of a request's id.
_ID_HEADER = "x-client-request-id"


@dataclass(frozen=True, slots=True)
class Invoice:
    """What the provider knows of each request, by the id under which it was forwarded.

    `total_nanos` may be more than the sum of `nanos`: then something was billed that the proxy
    has no name for.
    """

    total_nanos: int
    nanos: dict[str, int]
    arrived_at_ns: dict[str, int]


@contextmanager
def simulated_provider() -> Iterator[int]:
    """Run the simulated provider on the core of the load; gives its port."""
    with pinned("benchmarks.truth_provider", core=OTHER_CORE) as process:
        assert process.stdout is not None
        yield int(process.stdout.readline())


def invoice(port: int) -> Invoice:
    """Ask for the bill once nothing is being generated any more."""
    bill = _asked(port, "bill?when=idle")
    requests = _asked(port, "requests")["requests"]
    if bill["request_lines_dropped"] or len(requests) >= REQUESTS_KEPT_MAX:
        raise RuntimeError("the provider has forgotten requests: run fewer at once")
    return Invoice(
        total_nanos=bill["total_nanos"],
        nanos={name: line["nanos"] for name, line in bill["by_request"].items()},
        arrived_at_ns={
            value: _nanos(request["at"])
            for request in requests
            for name, value in request["headers"]
            if name == _ID_HEADER
        },
    )


def _asked(port: int, question: str) -> dict[str, Any]:
    address = f"http://127.0.0.1:{port}/_simulator/{question}"
    with urllib.request.urlopen(address, timeout=ANSWER_TIMEOUT_S) as answer:
        found: dict[str, Any] = json.load(answer)
    return found


def _nanos(text: str) -> int:
    """Read an instant in nanoseconds, exact to the microsecond it is written in."""
    at = datetime.fromisoformat(text)
    return int(at.replace(microsecond=0).timestamp()) * 10**9 + at.microsecond * 1000


async def serve() -> None:
    """Serve on a free port until the process is ended."""
    async with simulator(SimulatorSettings(requests_kept_max=REQUESTS_KEPT_MAX)) as running:
        print(running.port, flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(serve())
