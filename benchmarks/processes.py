"""Processes pinned to a core, and the CPU time they and their children have taken."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import msgspec

from benchmarks.load import Load, Result

# The server has one core to itself; load and provider share the other (`performance.md`).
SERVER_CORE = 0
OTHER_CORE = 1
TICKS_PER_S = os.sysconf("SC_CLK_TCK")
READY_TIMEOUT_S = 60
# Records are written within 50 ms of their request; what they cost belongs to it.
SETTLE_S = 0.3


@contextmanager
def pinned(
    module: str, *arguments: str, core: int, environment: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a Python module on one core until the end of the block."""
    process = subprocess.Popen(
        [sys.executable, "-m", module, *arguments],
        stdout=subprocess.PIPE,
        env={**os.environ, **(environment or {})},
        preexec_fn=lambda: os.sched_setaffinity(0, {core}),  # noqa: PLW1509 - no threads here
    )
    try:
        yield process
    finally:
        process.terminate()
        process.wait()


def cpu_us(pid: int) -> float:
    """Add up user and system time of a process and its descendants, in microseconds."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    own = (int(fields[11]) + int(fields[12])) * 1e6 / TICKS_PER_S
    return own + sum(cpu_us(child) for child in _children(pid))


def _children(pid: int) -> list[int]:
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return [int(child) for task in tasks for child in (task / "children").read_text().split()]


def send(load: Load) -> Result:
    """Send a load from a process of its own beside the provider."""
    argument = msgspec.json.encode(load).decode()
    with pinned("benchmarks.load", argument, core=OTHER_CORE) as process:
        output, _ = process.communicate()
    if process.returncode:
        raise RuntimeError(f"the load ended with {process.returncode}")
    return msgspec.json.decode(output, type=Result)


def send_and_measure(load: Load, server: int) -> tuple[Result, float]:
    """Send a load; gives its result and the server's CPU microseconds for each request."""
    before_us = cpu_us(server)
    result = send(load)
    time.sleep(SETTLE_S)
    return result, (cpu_us(server) - before_us) / load.requests


def until_answering(port: int) -> None:
    """Wait until a server answers anything but an error of its own on `/readyz`."""
    deadline = time.monotonic() + READY_TIMEOUT_S
    while time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
    raise TimeoutError(f"nothing became ready on port {port}")
