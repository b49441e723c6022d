"""`comptroller serve --demo` as a process, the way a new user starts it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.stack import free_port

ROOT = Path(__file__).parents[1]
STOP_TIMEOUT_S = 60


@dataclass(frozen=True)
class Demo:
    """A running demo server; `secrets` are the variables that its greeting tells to set."""

    process: subprocess.Popen[str]
    port: int
    secrets: dict[str, str]

    def stop(self) -> None:
        """Tell it to stop, as a service manager would, and wait for it."""
        self.process.send_signal(signal.SIGTERM)
        self.process.communicate(timeout=STOP_TIMEOUT_S)


@contextmanager
def demo(data_dir: Path, **settings: str) -> Iterator[Demo]:
    """Run the demo server in a data folder."""
    port = free_port()
    environment = {
        **os.environ,
        "COMPTROLLER_DATA_DIR": str(data_dir),
        "COMPTROLLER_PORT": str(port),
        "PYTHONUNBUFFERED": "1",
        **settings,
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "comptroller.cli", "serve", "--demo"],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=environment,
    )
    try:
        yield Demo(process, port, _secrets(process))
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=STOP_TIMEOUT_S)


def _secrets(server: subprocess.Popen[str]) -> dict[str, str]:
    assert server.stdout is not None
    found: dict[str, str] = {}
    for line in server.stdout:
        for name, secret in (("COMPTROLLER_KEY", "ck_live_"), ("COMPTROLLER_TOKEN", "cpat_")):
            match = re.search(rf"\b{secret}\w+", line)
            if match:
                found.setdefault(name, match[0])
        if line.startswith("  curl "):
            return found
    pytest.fail("the demo server ended before it was ready")
