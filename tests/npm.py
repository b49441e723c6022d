"""Packages of JavaScript in this repository: installed as their lock files say, then run."""

from __future__ import annotations

import os
import shutil
import subprocess
from hashlib import sha256
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DASHBOARD_CLIENT = ROOT / "examples/dashboard-client"
GRAPHIQL = ROOT / "scripts/graphiql"
SCHEMA_CONTRACT = ROOT / "scripts/schema-contract"
FOLDERS = (DASHBOARD_CLIENT, GRAPHIQL, SCHEMA_CONTRACT)


def install(folder: Path) -> None:
    """Install a folder's packages, unless its lock file is the one that was installed last."""
    lock = sha256((folder / "package-lock.json").read_bytes()).hexdigest()
    stamp = folder / "node_modules/.installed"
    if stamp.exists() and stamp.read_text() == lock:
        return
    npm(folder, "ci", "--ignore-scripts")
    stamp.write_text(lock)


def npm(folder: Path, *arguments: str, **environment: str) -> str:
    """Run npm in a folder; fails with what it said."""
    if shutil.which("npm") is None:
        pytest.fail("These tests need Node with npm: run scripts/test_tools.py first.")
    ran = subprocess.run(
        ["npm", *arguments],
        cwd=folder,
        env={**os.environ, "NO_UPDATE_NOTIFIER": "1", "NO_COLOR": "1", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=300,
    )
    assert ran.returncode == 0, ran.stdout
    return ran.stdout
