"""Deliveries without sockets: the application is driven in this process and sends to nobody.

    python -m benchmarks.fanout_inside '{"path": "/ours", …}'

Prints one `Result` as JSON. The settings of the installation come from the environment.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Sequence
from typing import Any

import msgspec
import uvloop

from benchmarks.fanout_server import PROTOCOL, ROUNDS, Round, create_app, messages_of
from benchmarks.fanout_sockets import Result, Task


async def drive(task: Task) -> Result:
    """Let all listeners listen to the end."""
    app = create_app()
    over = asyncio.Event()
    running = [asyncio.create_task(_listen(app, task, over)) for _ in range(task.listeners)]
    counted = ROUNDS.setdefault(task.name, Round(task.listeners))
    await counted.until(counted.greetings)
    wall, cpu = time.perf_counter(), time.process_time()
    await counted.until(task.messages)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    over.set()
    await asyncio.gather(*running)
    return Result(wall_s=wall, cpu_s=cpu)


async def _listen(app: Any, task: Task, over: asyncio.Event) -> None:
    await app(_scope(task), _receive(messages_of(task.token, task.variables), over), _discard)


def _receive(texts: Sequence[str], over: asyncio.Event) -> Any:
    events = [{"type": "websocket.connect"}]
    events += [{"type": "websocket.receive", "text": text, "bytes": None} for text in texts]  # type: ignore[dict-item]
    left = iter(events)

    async def receive() -> dict[str, Any]:
        event = next(left, None)
        if event is not None:
            return event
        await over.wait()
        return {"type": "websocket.disconnect", "code": 1000, "reason": ""}

    return receive


async def _discard(_message: Any) -> None:
    """Take what is sent."""


def _scope(task: Task) -> dict[str, Any]:
    return {
        "type": "websocket",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "scheme": "ws",
        "path": task.path,
        "raw_path": task.path.encode(),
        "root_path": "",
        "query_string": task.query_string.encode(),
        "headers": [(b"host", b"test"), (b"authorization", f"Bearer {task.token}".encode())],
        "subprotocols": [PROTOCOL],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 2),
        "extensions": {},
        "state": {},
    }


if __name__ == "__main__":
    print(
        msgspec.json.encode(uvloop.run(drive(msgspec.json.decode(sys.argv[1], type=Task)))).decode()
    )
