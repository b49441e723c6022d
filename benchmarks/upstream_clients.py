"""CPU per request of HTTP clients that could carry the proxy's upstream side.

    python -m benchmarks.upstream_clients [--scale 1]

User + system time by getrusage, all threads, of a process that does nothing but send requests to
a raw asyncio server pinned to the other core. The clients take turns in short batches in one
process, and the least batch counts: what else the machine does can only add.
JSON: POST 1 KB, answer 1 KB. SSE: a stream of 100 chunks, each sent by itself. The floor is one
asyncio transport that writes prepared bytes and reads until the expected length, without HTTP,
pool or time-outs.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import resource
import subprocess
import sys
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import uvloop
from aiohttp import ClientSession, ClientTimeout, DummyCookieJar, TCPConnector
from httpx import AsyncClient, Limits
from pyreqwest.client import ClientBuilder

from benchmarks.provider import CHUNKS, REPLY
from proxy.upstream import UpstreamPool, UpstreamSettings

BODY = json.dumps({"model": "m", "messages": [{"role": "user", "content": "x" * 900}]}).encode()
HEADERS = [
    ("authorization", "Bearer sk-" + "a" * 40),
    ("content-type", "application/json"),
    ("accept", "application/json"),
    ("accept-encoding", "identity"),
    ("user-agent", "comptroller"),
    ("x-request-id", "0190b6d0-0000-7000-8000-000000000000"),
]
RAW_HEADERS = [(name.encode(), value.encode()) for name, value in HEADERS]

Call = Callable[[str], Awaitable[int]]


# The clients: each is a function that performs one request and returns the bytes of the body.


class Floor(asyncio.Protocol):
    """Prepared bytes out, a known number of bytes in."""

    def __init__(self) -> None:
        self.size = 0
        self.done: asyncio.Future[int] | None = None
        self.end = b""

    def data_received(self, data: bytes) -> None:
        """Count until the expected end."""
        self.size += len(data)
        if data.endswith(self.end) and self.done is not None:
            self.done.set_result(self.size)


async def call_floor(base_url: str, _stack: AsyncExitStack) -> Call:
    loop = asyncio.get_running_loop()
    port = int(base_url.rpartition(":")[2])
    idle: list[tuple[Any, Floor]] = []
    head = b"".join(b"%b: %b\r\n" % header for header in RAW_HEADERS)
    rest = b" HTTP/1.1\r\nhost: h\r\n%bcontent-length: %d\r\n\r\n%b" % (head, len(BODY), BODY)

    async def call(path: str) -> int:
        transport, protocol = (
            idle.pop() if idle else await loop.create_connection(Floor, "127.0.0.1", port)
        )
        protocol.size = 0
        protocol.end = REPLY if path == "/json" else b"0\r\n\r\n"
        protocol.done = loop.create_future()
        transport.write(b"POST " + path.encode() + rest)
        size = await protocol.done
        idle.append((transport, protocol))
        return size

    return call


async def call_own(base_url: str, stack: AsyncExitStack) -> Call:
    settings = UpstreamSettings(private_allowed=("127.0.0.1",))
    pool = UpstreamPool(base_url, settings=settings)
    stack.push_async_callback(pool.aclose)

    async def call(path: str) -> int:
        answer = await pool.send(b"POST", path.encode(), RAW_HEADERS, BODY, head_timeout_s=30)
        async with answer:
            if path == "/json":
                return len(await answer.read(1 << 20))
            size = 0
            while chunk := await answer.next_chunk():
                size += len(chunk)
            return size

    return call


async def call_pyreqwest(base_url: str, stack: AsyncExitStack) -> Call:
    builder = ClientBuilder().max_connections(512).http1_only().follow_redirects(enable=False)
    builder = builder.no_proxy().timeout(timedelta(seconds=120))
    client = await stack.enter_async_context(builder.build())

    async def call(path: str) -> int:
        request = client.post(base_url + path).headers(HEADERS).body_bytes(BODY)
        if path == "/json":
            return len(await (await request.build().send()).bytes())
        size = 0
        async with request.build_streamed() as response:
            while chunk := await response.body_reader.read_chunk():
                size += len(chunk)
        return size

    return call


async def call_aiohttp(base_url: str, stack: AsyncExitStack) -> Call:
    session = await stack.enter_async_context(
        ClientSession(
            connector=TCPConnector(limit=512),
            cookie_jar=DummyCookieJar(),
            auto_decompress=False,
            timeout=ClientTimeout(total=None, sock_connect=5, sock_read=60),
        )
    )

    async def call(path: str) -> int:
        async with session.post(
            base_url + path, headers=HEADERS, data=BODY, allow_redirects=False
        ) as response:
            if path == "/json":
                return len(await response.read())
            size = 0
            async for chunk in response.content.iter_any():
                size += len(chunk)
            return size

    return call


async def call_httpx(base_url: str, stack: AsyncExitStack) -> Call:
    client = await stack.enter_async_context(
        AsyncClient(limits=Limits(max_connections=512), trust_env=False)
    )

    async def call(path: str) -> int:
        async with client.stream("POST", base_url + path, headers=HEADERS, content=BODY) as got:
            size = 0
            async for chunk in got.aiter_raw():
                size += len(chunk)
            return size

    return call


CLIENTS: dict[str, Callable[[str, AsyncExitStack], Awaitable[Call]]] = {
    "floor": call_floor,
    "own": call_own,
    "pyreqwest": call_pyreqwest,
    "aiohttp": call_aiohttp,
    "httpx": call_httpx,
}


# Measuring.

HTTPX_BATCHES = 2


@dataclass(frozen=True, slots=True)
class Case:
    """One row of the table; a batch is what is measured at a time."""

    name: str
    path: str
    connections: int
    batch: int
    rounds: int
    parts: int = 1


CASES = (
    Case("json, 1 connection", "/json", 1, 100, 40),
    Case("json, 64 connections", "/json", 64, 320, 40),
    Case("sse per chunk, 1 stream", "/sse/1", 1, 3, 16, CHUNKS),
    Case("sse per chunk, 64 streams", "/sse/20", 64, 64, 6, CHUNKS),
)


def cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


async def drive(call: Call, path: str, connections: int, requests: int) -> None:
    left = iter(range(requests))

    async def worker() -> None:
        for _ in left:
            assert await call(path) >= len(REPLY)

    await asyncio.gather(*(worker() for _ in range(connections)))


async def batch_us(call: Call, case: Case, share: int) -> float:
    requests = max(case.batch // share, case.connections)
    gc.collect()
    before_s = cpu_s()
    await drive(call, case.path, case.connections, requests)
    return (cpu_s() - before_s) / requests / case.parts * 1e6


async def measure(base_url: str, scale: float) -> None:
    async with AsyncExitStack() as stack:
        calls = {name: await make(base_url, stack) for name, make in CLIENTS.items()}
        print("CPU in microseconds, least of the batches (times own)")
        print(f"{'':28}" + "".join(f"{name:>16}" for name in calls))
        for case in CASES:
            figures: dict[str, list[float]] = {name: [] for name in calls}
            # Rounds are the outer loop, so that a busy second of the machine hits every client.
            for _ in range(max(round(case.rounds * scale), 2) + 1):
                for name, call in calls.items():
                    # For the record only: at 64 connections one of its requests takes seconds.
                    if name != "httpx" or len(figures[name]) < HTTPX_BATCHES:
                        share = 10 if name == "httpx" else 1
                        figures[name].append(await batch_us(call, case, share))
            print_row(case, figures)


def print_row(case: Case, figures: dict[str, list[float]]) -> None:
    low = {name: min(found) for name, found in figures.items()}
    cells = [f"{low[name]:8.0f} ({low[name] / low['own']:4.1f})" for name in figures]
    print(f"{case.name:28}" + "".join(f"{cell:>16}" for cell in cells), flush=True)


def report(scale: float) -> None:
    os.sched_setaffinity(0, {1})
    server = subprocess.Popen([sys.executable, "-m", "benchmarks.provider"], stdout=subprocess.PIPE)
    os.sched_setaffinity(0, {0})
    try:
        assert server.stdout is not None
        uvloop.run(measure(f"http://127.0.0.1:{int(server.stdout.readline())}", scale))
    finally:
        server.terminate()
        server.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scale", type=float, default=1.0, help="times the usual rounds")
    report(parser.parse_args().scale)


if __name__ == "__main__":
    main()
