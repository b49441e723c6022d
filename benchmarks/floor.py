"""The floor: what the same server costs when the application does next to nothing.

`/json` reads the body and answers as many bytes as the provider of the benchmarks does; `/sse/<ms>`
sends the provider's chunks at its pace, each by itself.
"""

from __future__ import annotations

import asyncio
from typing import Any

from benchmarks.provider import CHUNK, CHUNKS, LAST, REPLY

_JSON_HEAD = {
    "type": "http.response.start",
    "status": 200,
    "headers": [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(REPLY)).encode()),
    ],
}
_SSE_HEAD = {
    "type": "http.response.start",
    "status": 200,
    "headers": [(b"content-type", b"text/event-stream")],
}


def create_app() -> Any:
    """Make the application; a factory, as the product's is."""
    return _app


async def _app(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] != "http":
        return
    while (await receive()).get("more_body"):
        pass
    _, kind, *pace = scope["path"].split("/")
    if kind == "sse":
        await _stream(send, int(pace[0]) / 1000)
        return
    await send(_JSON_HEAD)
    await send({"type": "http.response.body", "body": REPLY, "more_body": False})


async def _stream(send: Any, pace_s: float) -> None:
    await send(_SSE_HEAD)
    for _ in range(CHUNKS):
        if pace_s:
            await asyncio.sleep(pace_s)
        await send({"type": "http.response.body", "body": CHUNK, "more_body": True})
    await send({"type": "http.response.body", "body": LAST, "more_body": False})
