"""The README's tour, run as a new user would: the demo server, then every Python block in turn."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.serving import demo

ROOT = Path(__file__).parents[2]


@pytest.mark.timeout(300)
def test_the_tour_does_what_it_says(tmp_path: Path) -> None:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert len(blocks) == 5
    with demo(tmp_path) as server:
        program = "\n".join(blocks).replace("127.0.0.1:8080", f"127.0.0.1:{server.port}")
        ran = subprocess.run(
            [sys.executable, "-c", program],
            capture_output=True,
            text=True,
            env={**os.environ, **server.secrets},
            check=False,
        )
    assert ran.returncode == 0, ran.stderr
    assert "cost: 0.05\nleft: 0.95\n" in ran.stdout
    assert "402 key_budget_exceeded" in ran.stdout
    assert re.search(r"used 0\.9\d+ of 1\.00 and frees at \d{4}-", ran.stdout)
    assert "'code': 'key_budget_exceeded'" in ran.stdout
    assert ran.stdout.endswith("401 invalid_api_key\n")
