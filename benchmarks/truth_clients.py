"""Clients that send until the first refusal, cheap enough to share a core with the provider.

    python -m benchmarks.truth_clients '{"port": 8080, "runs": [{"secret": …}]}'

Reads one `Clients` as JSON from its argument and prints the list of its `Outcome`s as JSON.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import Any

import msgspec
import uvloop

PATH = "/v1/chat/completions"
CUT_CODE = b"stream_cut_by_limit"
CUT_HEADER = b"\r\nx-comptroller-cut:"
# The last event of a stream is shorter: what is kept of one to see how it ended.
TAIL_BYTES = 2_048
# A run that nothing refuses or that hangs is ended, and reported as such.
RUN_TIMEOUT_S = 900


class Run(msgspec.Struct, kw_only=True, frozen=True):
    """What one organization's clients send; runs of one `lane` follow each other.

    Every `json_every`th request asks for JSON (0: none). Request n carries the seed
    `first_seed + n`, from which the provider draws its length. At most `requests_max` are sent.
    """

    name: str
    lane: str
    secret: str
    model: str
    prompt: str
    first_seed: int
    requests_max: int
    clients: int = 50
    json_every: int = 0
    max_tokens: int | None = None
    until_refused: bool = True


class Clients(msgspec.Struct, kw_only=True, frozen=True):
    """All runs against one server."""

    port: int
    runs: list[Run]


class Outcome(msgspec.Struct, kw_only=True):
    """What came of a run, as its clients saw it.

    `ends` counts answers by how they ended: completed, cut, refused, or a status with its code.
    """

    name: str
    begun_at_ns: int = 0
    wall_s: float = 0.0
    ends: dict[str, int] = {}
    refused_seeds: list[int] = []

    @property
    def answers(self) -> int:
        """Count all answers."""
        return sum(self.ends.values())

    def count(self, end: str) -> int:
        """Count the answers that ended in one way."""
        return self.ends.get(end, 0)

    def add(self, end: str) -> None:
        """Count one answer more."""
        self.ends[end] = self.count(end) + 1


class Sender:
    """The requests of one run and what became of them."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._sent = 0
        self._is_refused = False
        self.outcome = Outcome(name=run.name)

    def next(self) -> tuple[int, bytes] | None:
        """Give the next request with its seed; None once there is nothing more to send."""
        run = self._run
        if self._sent >= run.requests_max or (self._is_refused and run.until_refused):
            return None
        seed = run.first_seed + self._sent
        self._sent += 1
        streams = not (run.json_every and self._sent % run.json_every == 0)
        return seed, _request(run, seed, streams=streams)

    def ended(self, seed: int, end: str) -> None:
        """Note how a request ended."""
        self.outcome.add(end)
        if end == "refused":
            self._is_refused = True
            self.outcome.refused_seeds.append(seed)


def _request(run: Run, seed: int, *, streams: bool) -> bytes:
    asked: dict[str, Any] = {
        "model": run.model,
        "messages": [{"role": "user", "content": run.prompt}],
        "seed": seed,
        "stream": streams,
    }
    if run.max_tokens is not None:
        asked["max_tokens"] = run.max_tokens
    body = json.dumps(asked).encode()
    head = (
        f"POST {PATH} HTTP/1.1\r\nhost: 127.0.0.1\r\nauthorization: Bearer {run.secret}\r\n"
        f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


class Connection(asyncio.Protocol):
    """One connection, one request at a time; `answered` resolves to how each ended."""

    def connection_made(self, transport: Any) -> None:
        """Begin a connection."""
        self._transport = transport
        self.is_open = True
        self._answered: asyncio.Future[str] | None = None

    def send(self, request: bytes) -> asyncio.Future[str]:
        """Send a request; the future resolves once its answer is whole."""
        self._head, self._tail = b"", b""
        self._size, self._length = 0, -1
        self._answered = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return self._answered

    def close(self) -> None:
        """Close the connection."""
        self._transport.close()

    def data_received(self, data: bytes) -> None:
        """Take a part of the answer; of its body only the end is kept."""
        if not self._size and not self._tail:
            data = self._after_head(data)
        self._size += len(data)
        self._tail = (self._tail + data)[-TAIL_BYTES:]
        if self._size == self._length or (self._length < 0 and self._tail.endswith(b"0\r\n\r\n")):
            self._end()

    def connection_lost(self, _error: Exception | None) -> None:
        """End the answer that is being read."""
        self.is_open = False
        self._end()

    def _after_head(self, data: bytes) -> bytes:
        self._head += data
        head, found, rest = self._head.partition(b"\r\n\r\n")
        if not found:
            return b""
        lower = head.lower()
        at = lower.find(b"content-length:")
        self._length = -1 if at < 0 else int(lower[at + 15 :].split(b"\r\n", 1)[0])
        return rest

    def _end(self) -> None:
        if self._answered is not None and not self._answered.done():
            self._answered.set_result(self._how())

    def _how(self) -> str:
        """Say how the answer ended, by its status, its head and its last bytes."""
        status = self._head[9:12]
        if CUT_CODE in self._tail or CUT_HEADER in self._head.lower():
            return "cut"
        if status == b"200":
            is_whole = self._length == self._size or b"data: [DONE]" in self._tail
            return "completed" if is_whole else "broken"
        if status == b"402":
            return "refused"
        return f"{status.decode() or 'lost'} {_code_in(self._tail)}".strip()


def _code_in(body: bytes) -> str:
    try:
        return str(json.loads(body)["error"]["code"])
    except (ValueError, KeyError, TypeError):
        return ""


async def _client(port: int, sender: Sender) -> None:
    connection = await _connected(port)
    while (following := sender.next()) is not None:
        seed, request = following
        if not connection.is_open:
            connection = await _connected(port)
        sender.ended(seed, await connection.send(request))
    connection.close()


async def _connected(port: int) -> Connection:
    loop = asyncio.get_running_loop()
    _, connection = await loop.create_connection(Connection, "127.0.0.1", port)
    return connection


async def _one(port: int, run: Run) -> Outcome:
    sender = Sender(run)
    sender.outcome.begun_at_ns, begun = time.time_ns(), time.perf_counter()
    clients = asyncio.gather(*(_client(port, sender) for _ in range(run.clients)))
    try:
        await asyncio.wait_for(clients, RUN_TIMEOUT_S)
    except TimeoutError:
        sender.outcome.add("timed out")
    sender.outcome.wall_s = time.perf_counter() - begun
    return sender.outcome


async def _lane(port: int, runs: list[Run]) -> list[Outcome]:
    return [await _one(port, run) for run in runs]


async def drive(clients: Clients) -> list[Outcome]:
    """Run all lanes at once; gives the outcomes in no order."""
    lanes: dict[str, list[Run]] = {}
    for run in clients.runs:
        lanes.setdefault(run.lane, []).append(run)
    driven = await asyncio.gather(*(_lane(clients.port, runs) for runs in lanes.values()))
    return [outcome for outcomes in driven for outcome in outcomes]


if __name__ == "__main__":
    outcomes = uvloop.run(drive(msgspec.json.decode(sys.argv[1], type=Clients)))
    print(msgspec.json.encode(outcomes).decode())
