"""A provider that answers with prepared bytes, so that a benchmark measures what is before it.

    python -m benchmarks.provider        prints its port, serves until it is ended

`/json…` answers a chat completion of 1 KB; `/sse/<pace in ms>…` a stream of `CHUNKS` chunks, each
written by itself. What follows in the path is ignored, so either can be a base URL.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

import uvloop

CHUNKS = 100
_USAGE = {"prompt_tokens": 230, "completion_tokens": CHUNKS, "total_tokens": 230 + CHUNKS}
_HEAD = {"id": "chatcmpl-1", "created": 1, "model": "bench"}
REPLY = json.dumps(
    {
        **_HEAD,
        "object": "chat.completion",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "word " * 150},
                "finish_reason": "stop",
            }
        ],
        "usage": _USAGE,
    }
).encode()


def _event(**members: Any) -> bytes:
    body = json.dumps({**_HEAD, "object": "chat.completion.chunk", **members}).encode()
    return b"data: " + body + b"\n\n"


CHUNK = _event(choices=[{"index": 0, "delta": {"content": "token "}, "finish_reason": None}])
LAST = (
    _event(choices=[{"index": 0, "delta": {}, "finish_reason": "stop"}])
    + _event(choices=[], usage=_USAGE)
    + b"data: [DONE]\n\n"
)
SSE_HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
)


class Provider(asyncio.Protocol):
    """One connection; pipelining is not expected."""

    def connection_made(self, transport: Any) -> None:
        """Begin a connection."""
        self.transport = transport
        self.received = bytearray()

    def data_received(self, data: bytes) -> None:
        """Answer once the request is whole."""
        self.received += data
        head_end = self.received.find(b"\r\n\r\n")
        if head_end < 0:
            return
        head = bytes(self.received[:head_end]).lower()
        length = int(head.split(b"content-length:")[1].split(b"\r\n")[0])
        if len(self.received) < head_end + 4 + length:
            return
        self.received.clear()
        self._answer(head.split(b" ", 2)[1].split(b"/"))

    def _answer(self, path: list[bytes]) -> None:
        if path[1] == b"json":
            self.transport.write(
                b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nserver: raw\r\n"
                b"x-request-id: 1\r\ncontent-length: %d\r\n\r\n%b" % (len(REPLY), REPLY)
            )
            return
        self.transport.write(SSE_HEAD)
        self._send(CHUNKS, int(path[2]) / 1000)

    def _send(self, left: int, pace_s: float) -> None:
        """Write one chunk and come back for the next."""
        if left:
            self.transport.write(b"%x\r\n%b\r\n" % (len(CHUNK), CHUNK))
            asyncio.get_running_loop().call_later(pace_s, self._send, left - 1, pace_s)
        else:
            self.transport.write(b"%x\r\n%b\r\n0\r\n\r\n" % (len(LAST), LAST))


async def serve() -> None:
    """Serve on a free port until the process is ended."""
    server = await asyncio.get_running_loop().create_server(Provider, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve())
