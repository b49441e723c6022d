"""Listeners over real sockets, with so little of the protocol that the server is the bottleneck.

    python -m benchmarks.fanout_sockets '{"port": 8080, "path": "/ours", …}'

Prints one `Result` as JSON.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from typing import Any
from urllib.parse import urlencode

import msgspec
import uvloop

from benchmarks.fanout_server import GREETINGS, PROTOCOL, messages_of

_TEXT_FRAME = 0x81
_MASKED = 0x80


class Task(msgspec.Struct, kw_only=True):
    """One round: who listens to what, and how much comes."""

    path: str
    token: str
    name: str
    listeners: int
    ticks: int
    shared: bool
    port: int = 0

    @property
    def variables(self) -> dict[str, object]:
        """Give the variables of the subscription."""
        names = ("name", "listeners", "ticks", "shared")
        return {name: getattr(self, name) for name in names}

    @property
    def query_string(self) -> str:
        """Name the round in the address, for those who count."""
        return urlencode({"name": self.name, "listeners": self.listeners})

    @property
    def messages(self) -> int:
        """How many messages all listeners get: greetings, snapshots, the end."""
        return self.listeners * (GREETINGS + self.ticks + 1)


class Result(msgspec.Struct, kw_only=True):
    """From the first snapshot to the end: wall time, and CPU seconds of the measuring process."""

    wall_s: float
    cpu_s: float


class Listeners:
    """Counts what all connections get."""

    def __init__(self, task: Task) -> None:
        self._left = task.messages
        self._left_at_start = task.messages - task.listeners * GREETINGS
        self.begun = (0.0, 0.0)
        self.done: asyncio.Future[Result] = asyncio.get_running_loop().create_future()

    def count(self, messages: int) -> None:
        """Note messages that came."""
        if self._left > self._left_at_start >= self._left - messages:
            self.begun = (time.perf_counter(), time.process_time())
        self._left -= messages
        if self._left == 0:
            wall, cpu = self.begun
            wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
            self.done.set_result(Result(wall_s=wall, cpu_s=cpu))

    def fail(self, error: Exception) -> None:
        """End the round with an error."""
        if not self.done.done():
            self.done.set_exception(error)


class Listener(asyncio.Protocol):
    """One connection; the server's frames are never split into fragments."""

    def __init__(self, task: Task, all_listeners: Listeners) -> None:
        self._task = task
        self._all = all_listeners
        self._buffer = bytearray()
        self._is_open = False

    def connection_made(self, transport: Any) -> None:
        """Ask for the upgrade."""
        self._transport = transport
        task = self._task
        transport.write(
            f"GET {task.path}?{task.query_string} HTTP/1.1\r\nhost: 127.0.0.1\r\n"
            "upgrade: websocket\r\nconnection: upgrade\r\nsec-websocket-version: 13\r\n"
            "sec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
            f"sec-websocket-protocol: {PROTOCOL}\r\n"
            f"authorization: Bearer {task.token}\r\n\r\n".encode()
        )

    def data_received(self, data: bytes) -> None:
        """Count whole frames."""
        self._buffer += data
        if not self._is_open and not self._open():
            return
        at, messages, buffer = 0, 0, self._buffer
        while (end := _frame_end(buffer, at)) <= len(buffer):
            if buffer[at] != _TEXT_FRAME:
                self._all.fail(RuntimeError(f"the server closed: {bytes(buffer[at:end])!r}"))
                return
            messages += 1
            at = end
        del buffer[:at]
        if messages:
            self._all.count(messages)

    def connection_lost(self, error: Exception | None) -> None:
        """Fail the round: the server must keep its connections to the end."""
        self._all.fail(error or ConnectionError("the server closed the connection"))

    def _open(self) -> bool:
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            return False
        if not self._buffer.startswith(b"HTTP/1.1 101"):
            self._all.fail(RuntimeError(self._buffer.decode(errors="replace")))
        del self._buffer[: end + 4]
        self._is_open = True
        for text in messages_of(self._task.token, self._task.variables):
            self._transport.write(_frame(text.encode()))
        return True


def _frame_end(buffer: bytearray, at: int) -> int:
    """Tell where the frame at a place ends; beyond the buffer when it is not all there."""
    if len(buffer) < at + 4:
        # A frame of two bytes may be whole: an empty message, which nobody here sends.
        return len(buffer) + 1
    length = buffer[at + 1]
    if length < 126:
        return at + 2 + length
    if length == 126:
        return at + 4 + int.from_bytes(buffer[at + 2 : at + 4], "big")
    return at + 10 + int.from_bytes(buffer[at + 2 : at + 10], "big")


def _frame(payload: bytes) -> bytes:
    mask = os.urandom(4)
    masked = bytes(byte ^ mask[index % 4] for index, byte in enumerate(payload))
    head = bytes((_TEXT_FRAME, _MASKED | 126)) + len(payload).to_bytes(2, "big")
    if len(payload) < 126:
        head = bytes((_TEXT_FRAME, _MASKED | len(payload)))
    return head + mask + masked


async def listen(task: Task) -> Result:
    """Open all connections and count to the end."""
    listeners = Listeners(task)
    loop = asyncio.get_running_loop()
    for _ in range(task.listeners):
        await loop.create_connection(lambda: Listener(task, listeners), "127.0.0.1", task.port)
    return await listeners.done


if __name__ == "__main__":
    print(
        msgspec.json.encode(
            uvloop.run(listen(msgspec.json.decode(sys.argv[1], type=Task)))
        ).decode()
    )
