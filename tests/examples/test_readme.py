"""The README's tour, run as a new user would: the demo server, then every Python block in turn."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.stack import free_port

ROOT = Path(__file__).parents[2]


@contextmanager
def demo(data_dir: Path, port: int) -> Iterator[dict[str, str]]:
    """Run `comptroller serve --demo`; gives the variables that its greeting tells to set."""
    environment = {
        **os.environ,
        "COMPTROLLER_DATA_DIR": str(data_dir),
        "COMPTROLLER_PORT": str(port),
        "PYTHONUNBUFFERED": "1",
    }
    server = subprocess.Popen(
        [sys.executable, "-m", "comptroller.cli", "serve", "--demo"],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=environment,
    )
    try:
        yield {**os.environ, **_secrets(server)}
    finally:
        server.send_signal(signal.SIGTERM)
        server.communicate(timeout=60)


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


@pytest.mark.timeout(300)
def test_the_tour_does_what_it_says(tmp_path: Path) -> None:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert len(blocks) == 5
    port = free_port()
    program = "\n".join(blocks).replace("127.0.0.1:8080", f"127.0.0.1:{port}")
    with demo(tmp_path, port) as environment:
        ran = subprocess.run(
            [sys.executable, "-c", program],
            capture_output=True,
            text=True,
            env=environment,
            check=False,
        )
    assert ran.returncode == 0, ran.stderr
    assert "cost: 0.05\nleft: 0.95\n" in ran.stdout
    assert "402 key_budget_exceeded" in ran.stdout
    assert re.search(r"used 0\.9\d+ of 1\.00 and frees at \d{4}-", ran.stdout)
    assert "'code': 'key_budget_exceeded'" in ran.stdout
    assert ran.stdout.endswith("401 invalid_api_key\n")
