"""Run a command with a PostgreSQL and a Redis server for tests.

    python scripts/test_services.py -- pytest

Servers named by COMPTROLLER_TEST_DATABASE_URL and COMPTROLLER_TEST_REDIS_URL are used as they
are. Otherwise local binaries are started on free ports in a temporary folder, installed with apt
first where that is possible. What was started is stopped at the end.
"""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

DATABASE = "COMPTROLLER_TEST_DATABASE_URL"
REDIS = "COMPTROLLER_TEST_REDIS_URL"
START_TIMEOUT_S = 60
PACKAGES = {"postgres": "postgresql", "initdb": "postgresql", "redis-server": "redis-server"}


def main() -> int:
    """Start what is missing, run the command, stop what was started."""
    command = sys.argv[sys.argv.index("--") + 1 :]
    with ExitStack() as services:
        if DATABASE not in os.environ:
            os.environ[DATABASE] = services.enter_context(postgresql())
        if REDIS not in os.environ:
            os.environ[REDIS] = services.enter_context(redis())
        return subprocess.run(command, check=False).returncode


@contextmanager
def postgresql() -> Iterator[str]:
    """Start PostgreSQL; gives its address."""
    initdb, postgres = binary("initdb"), binary("postgres")
    with tempfile.TemporaryDirectory(prefix="comptroller-pg-") as folder:
        # PostgreSQL refuses to run as root.
        user = "postgres" if os.geteuid() == 0 else None
        if user is not None:
            owner = pwd.getpwnam(user)
            os.chown(folder, owner.pw_uid, owner.pw_gid)
        data, port = Path(folder) / "data", free_port()
        initialise = [initdb, "-D", str(data), "-U", "postgres", "-A", "trust", "-N", "-E", "UTF8"]
        subprocess.run(
            [*initialise, "--locale=C"], check=True, stdout=subprocess.DEVNULL, user=user
        )
        # A test server may lose what it wrote when the machine dies, and is faster for it.
        options = [
            "-c",
            "fsync=off",
            "-c",
            "max_connections=300",
            "-c",
            "listen_addresses=127.0.0.1",
        ]
        server = [postgres, "-D", str(data), "-p", str(port), "-k", folder, *options]
        with running(server, Path(folder) / "log", port, user):
            yield f"postgresql://postgres@127.0.0.1:{port}/postgres"


@contextmanager
def redis() -> Iterator[str]:
    """Start Redis; gives its address."""
    server, port = binary("redis-server"), free_port()
    with tempfile.TemporaryDirectory(prefix="comptroller-redis-") as folder:
        options = ["--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", folder]
        with running([server, *options], Path(folder) / "log", port, None):
            yield f"redis://127.0.0.1:{port}/0"


@contextmanager
def running(command: list[str], log: Path, port: int, user: str | None) -> Iterator[None]:
    """Run a server from the moment it takes connections to the end of the block."""
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, user=user)
    try:
        wait_for_port(process, port, log)
        yield
    finally:
        process.terminate()
        process.wait(START_TIMEOUT_S)


def wait_for_port(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    """Wait until the server answers; fails with its log when it does not."""
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline and process.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    sys.exit(f"{process.args!r} did not start:\n{log.read_text(errors='replace')}")


def binary(name: str) -> str:
    """Find a server's binary, installing its package where that is possible."""
    found = find(name)
    if found is None and os.geteuid() == 0 and shutil.which("apt-get"):
        print(f"installing {PACKAGES[name]} for the tests", file=sys.stderr)
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        for step in (["update", "-qq"], ["install", "-y", "-qq", PACKAGES[name]]):
            subprocess.run(["apt-get", *step], check=False, stdout=sys.stderr, env=environment)
        found = find(name)
    if found is None:
        sys.exit(f"The tests need {name}: install {PACKAGES[name]}, or set {DATABASE} and {REDIS}.")
    return found


def find(name: str) -> str | None:
    """Look a binary up in PATH and where Debian puts PostgreSQL's."""
    versions = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    return shutil.which(name) or (str(versions[-1]) if versions else None)


def free_port() -> int:
    """Find a port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


if __name__ == "__main__":
    sys.exit(main())
