"""Dashboards as people leave them open: each polls every second and subscribes.

    python -m benchmarks.dashboard '{"port": 8080, "tokens": ["cpat_…"], …}'

Prints a line once all subscriptions run, and what came as JSON at the end.
"""

from __future__ import annotations

import asyncio
import sys
import time
from contextlib import suppress
from typing import Any

import httpx
import msgspec
import uvloop

from benchmarks.subscribing import subscribed, take_all
from controlplane.routes import GRAPHQL_PATH

POLL_EVERY_S = 1.0
_SCOPE = "scope { kind id }"
_STATE = "state { settled held remaining resetsAt asOf }"
POLLED = {
    "teams": "teams { nodes { id slug name } }",
    "budgets": f"budgets {{ nodes {{ id {_SCOPE} period limit version {_STATE} }} }}",
    "requests": """
        requests(first: 50) {
          nodes {
            id at keyId requestedModel servedModel decision code httpStatus charge inputTokens
            outputTokens latencyMs
          }
          pageInfo { hasNextPage endCursor }
        }
    """,
}
FOLLOWED = {
    "spend": f"""
        at seq
        scopes {{
          {_SCOPE} lastMinute lastHour requestsPerMinute refusedPerMinute
          budgets {{ id limit {_STATE} }}
        }}
    """,
    "log": "seq dropped requests { id at keyId servedModel decision charge latencyMs }",
}


class Watch(msgspec.Struct, kw_only=True):
    """How many dashboards, one for each token, watch what for how long."""

    port: int
    tokens: list[str]
    organization: str
    seconds: float
    is_polling: bool


class Watched(msgspec.Struct, kw_only=True):
    """What all dashboards got."""

    polls: int = 0
    snapshots: int = 0
    batches: int = 0


async def watch(task: Watch) -> Watched:
    """Run all dashboards to the end."""
    got = Watched()
    ready = asyncio.Barrier(len(task.tokens) + 1)
    running = [asyncio.create_task(_dashboard(task, token, got, ready)) for token in task.tokens]
    await ready.wait()
    print("ready", flush=True)
    await asyncio.gather(*running)
    return got


async def _dashboard(task: Watch, token: str, got: Watched, ready: asyncio.Barrier) -> None:
    def take(name: str, _data: dict[str, Any], _came_ns: int) -> None:
        got.snapshots += name == "spend"
        got.batches += name == "log"

    place = f'organizationId: "{task.organization}"'
    queries = {
        "spend": f"subscription {{ liveSpend({place}) {{ {FOLLOWED['spend']} }} }}",
        "log": f"subscription {{ requestLog({place}) {{ {FOLLOWED['log']} }} }}",
    }
    async with subscribed(task.port, token, queries) as socket:
        taking = asyncio.create_task(take_all(socket, take))
        await ready.wait()
        ends_at = time.monotonic() + task.seconds
        while time.monotonic() < ends_at and not taking.done():
            due_at = time.monotonic() + POLL_EVERY_S
            if task.is_polling:
                await _poll(task.port, token, got)
            await asyncio.sleep(max(0.0, due_at - time.monotonic()))
        taking.cancel()
        with suppress(asyncio.CancelledError):
            await taking


async def _poll(port: int, token: str, got: Watched) -> None:
    """Ask for all lists at once, as the parts of a page do."""
    address = f"http://127.0.0.1:{port}{GRAPHQL_PATH}"
    headers = {"authorization": f"Bearer {token}"}
    async with httpx.AsyncClient(headers=headers, timeout=30) as client:
        answers = await asyncio.gather(
            *(client.post(address, json={"query": _query(part)}) for part in POLLED.values())
        )
    for answer in answers:
        if "errors" in answer.json():
            raise RuntimeError(answer.text)
        got.polls += 1


def _query(part: str) -> str:
    return f'{{ organization(slug: "governed") {{ {part} }} }}'


if __name__ == "__main__":
    found = uvloop.run(watch(msgspec.json.decode(sys.argv[1], type=Watch)))
    print(msgspec.json.encode(found).decode())
