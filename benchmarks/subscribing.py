"""A subscriber as dashboards are: the protocol graphql-transport-ws over a WebSocket library."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

from websockets.asyncio.client import ClientConnection, connect

from benchmarks.fanout_server import PROTOCOL
from controlplane.routes import GRAPHQL_PATH

# Takes the id of a subscription, its data, and when it came by the wall clock.
Take = Callable[[str, dict[str, Any], int], None]


@asynccontextmanager
async def subscribed(
    port: int, token: str, queries: Mapping[str, str]
) -> AsyncIterator[ClientConnection]:
    """Open a socket with the named subscriptions on it."""
    address = f"ws://127.0.0.1:{port}{GRAPHQL_PATH}"
    async with connect(address, subprotocols=[PROTOCOL], compression=None) as socket:  # type: ignore[list-item]
        who = {"authorization": f"Bearer {token}"}
        await socket.send(json.dumps({"type": "connection_init", "payload": who}))
        acknowledged = json.loads(await socket.recv())
        assert acknowledged["type"] == "connection_ack", acknowledged
        for name, query in queries.items():
            message = {"type": "subscribe", "id": name, "payload": {"query": query}}
            await socket.send(json.dumps(message))
        yield socket


async def take_all(socket: ClientConnection, take: Take) -> None:
    """Hand on what comes until cancelled; fails when a subscription does."""
    while True:
        text = await socket.recv()
        came_ns = time.time_ns()
        message = json.loads(text)
        if message["type"] == "ping":
            await socket.send(json.dumps({"type": "pong"}))
        elif message["type"] == "next":
            take(message["id"], message["payload"]["data"], came_ns)
        else:
            raise RuntimeError(f"not a snapshot: {text!r}")
