"""Asking the proxy as any HTTP client does, and holding the books against the provider's bill."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx

from comptroller.simulator.running import RunningSimulator
from controlplane.ledger.models import DecisionRow
from proxy.upstream import UpstreamPool
from tests.stack import Stack

MODEL = "sim-small"


def body(directive: str = "", *, stream: bool = False, **fields: Any) -> dict[str, Any]:
    """Write a request whose answer the simulated provider gives as the directive says."""
    content = f"[[sim {directive}]] Hello" if directive else "Hello"
    asked = {"model": MODEL, "messages": [{"role": "user", "content": content}]}
    return {**asked, "max_tokens": 20, "stream": stream, **fields}


def headers(secret: str) -> dict[str, str]:
    return {"authorization": f"Bearer {secret}"}


def ask(
    stack: Stack, directive: str = "", *, secret: str | None = None, **fields: Any
) -> httpx.Response:
    """Ask with a key of its own and take the whole answer."""
    return httpx.post(
        f"{stack.base_url}/chat/completions",
        json=body(directive, **fields),
        headers=headers(secret or stack.key()[1]),
        timeout=30,
    )


def events(content: bytes) -> list[bytes]:
    """Give the data of every event of a stream."""
    return [line[6:] for line in content.split(b"\n") if line.startswith(b"data: ")]


def last_error(content: bytes) -> dict[str, Any]:
    """Give the error that ends a stream; there is no `[DONE]` before or after it."""
    found = events(content)
    assert b"[DONE]" not in found
    error: dict[str, Any] = json.loads(found[-1])["error"]
    assert not any(b'"error"' in event for event in found[:-1])
    return error


def bill_at_rest(provider: RunningSimulator) -> dict[str, Any]:
    """Give the bill once the provider generates nothing any more."""
    answer = httpx.get(f"{provider.address}/_simulator/bill", params={"when": "idle"}, timeout=30)
    bill: dict[str, Any] = answer.json()
    return bill


def until_settled(stack: Stack) -> None:
    """Wait until nothing is held any more; the test's time-out is the bound."""

    async def settled() -> None:
        while stack.open_reservations():  # noqa: ASYNC110 - the engine tells nobody
            await asyncio.sleep(0.005)

    stack.run(settled)


def the_record(stack: Stack, provider: RunningSimulator) -> DecisionRow:
    """Give the one record there is; the ledger agrees with it and covers the bill."""
    bill = bill_at_rest(provider)
    until_settled(stack)
    [record] = stack.records()
    entries = stack.ledger()
    booked = [(each.id, each.charge_nanos, each.usage_source) for each in entries]
    if record.decision == "refused" or (not entries and record.charge_nanos == 0):
        assert (booked, record.usage_source) == ([], "none")
    else:
        assert booked == [(record.id, record.charge_nanos, record.usage_source)]
    assert record.charge_nanos >= bill["total_nanos"]
    if record.usage_source == "provider" and entries[0].overrun_nanos == 0:
        assert record.charge_nanos == bill["total_nanos"]
    return record


def pool(stack: Stack, model: str = MODEL) -> UpstreamPool:
    """Give the connections to the provider of a model."""
    return stack.comptroller.proxy._catalogue.route(model).pool


def forget_connections(stack: Stack) -> None:
    """Close the idle connections, so that a test sees what becomes of its own."""

    async def forget() -> None:
        for connection in list(pool(stack)._idle):
            connection.close()

    stack.run(forget)
    assert pool(stack).connections_open == 0


def answers_well(stack: Stack, provider: RunningSimulator) -> None:
    """Check that after all that happened the next request is served and booked exactly."""
    billed = bill_at_rest(provider)["total_nanos"]
    booked = stack.ledger_nanos()
    answer = ask(stack, "output=5")
    assert answer.status_code == 200
    assert answer.json()["usage"]["completion_tokens"] == 5
    gained = bill_at_rest(provider)["total_nanos"] - billed
    assert stack.ledger_nanos() - booked == gained > 0
    assert stack.open_reservations() == 0
