"""The built wheel, away from the source tree: it must carry all it needs."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from tests.stack import free_port

ROOT = Path(__file__).parents[2]


@pytest.mark.timeout(900)
def test_the_wheel_serves_from_another_folder(tmp_path: Path) -> None:
    wheels, installed = tmp_path / "wheels", tmp_path / "installed"
    _run(
        [sys.executable, "-m", "maturin", "build", "--release", "--quiet", "--out", str(wheels)],
        ROOT,
    )
    [wheel] = wheels.glob("*.whl")
    _run(
        [
            sys.executable,
            "-m",
            "uv",
            "pip",
            "install",
            "--quiet",
            "--no-deps",
            "--target",
            str(installed),
            str(wheel),
        ],
        tmp_path,
    )
    assert not list(installed.rglob("*.rs"))
    assert not list(installed.rglob("Cargo.toml"))
    environment = {
        **os.environ,
        "PYTHONPATH": str(installed),
        "COMPTROLLER_DATA_DIR": str(tmp_path / "data"),
        "COMPTROLLER_PORT": str(free_port()),
    }
    where = _run(
        [sys.executable, "-c", "import core_rs; print(core_rs.__file__)"], tmp_path, environment
    )
    assert where.startswith(str(installed))
    command = [sys.executable, "-m", "comptroller.cli"]
    made = json.loads(
        _run([*command, "init", "--email", "ada@example.org", "--json"], tmp_path, environment)
    )
    server = subprocess.Popen(
        [*command, "serve"], cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True
    )
    try:
        assert server.stdout is not None
        ready = next(line for line in server.stdout if "ready at" in line)
        answer = httpx.post(
            f"{ready.split()[-1]}/graphql",
            json={"query": "{ viewer { user { email } } }"},
            headers={"authorization": f"Bearer {made['admin_token']}"},
            timeout=60,
        )
        assert answer.json()["data"] == {"viewer": {"user": {"email": "ada@example.org"}}}
        page = httpx.get(f"{ready.split()[-1]}/graphiql", timeout=60)
        [script] = re.findall(r'<script type="module" src="([^"]+)"', page.text)
        asset = httpx.get(f"{ready.split()[-1]}{script}", timeout=60)
        assert (page.status_code, asset.status_code) == (200, 200)
    finally:
        server.terminate()
        server.communicate(timeout=60)


def _run(command: list[str], folder: Path, environment: dict[str, str] | None = None) -> str:
    ran = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout
