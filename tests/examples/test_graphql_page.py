"""The page about the GraphQL API, run as it reads: the demo server, then every block in turn."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.serving import demo

PAGE = Path(__file__).parents[2] / "docs/reference/graphql-api.md"


@pytest.mark.timeout(300)
def test_the_page_does_what_it_says(tmp_path: Path) -> None:
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert len(blocks) == 4
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
    limit, code, cost, scopes = ran.stdout.splitlines()
    assert (limit, code) == ("100.00", "STALE_VERSION")
    assert re.fullmatch(r"\d+ points, of 100000 left: \d+", cost)
    budget = "{'limit': '100.00', 'state': {'settled': '0.00', 'held': '0.00'}}"
    assert scopes.count(budget) == 2  # the demo's own by month, and this one by week
