"""A server that is told to stop ends what is running, tells its callers, and loses nothing."""

from __future__ import annotations

import contextlib
import json
import sqlite3
import threading
from pathlib import Path

import httpx

from tests.serving import Demo, demo


class Asking(threading.Thread):
    """A streaming request that goes on until the server ends it."""

    def __init__(self, server: Demo) -> None:
        super().__init__()
        self.has_begun = threading.Event()
        self.events: list[str] = []
        self._request = httpx.Request(
            "POST",
            f"http://127.0.0.1:{server.port}/v1/chat/completions",
            json={
                "model": "sim-small",
                "messages": [{"role": "user", "content": "[[sim output=2000 pace=20]] Hello"}],
                "max_tokens": 2000,
                "stream": True,
            },
            headers={"authorization": f"Bearer {server.secrets['COMPTROLLER_KEY']}"},
            extensions={"timeout": {"read": 60}},
        )

    def run(self) -> None:
        with httpx.Client() as client:
            answer = client.send(self._request, stream=True)
            for line in answer.iter_lines():
                self.events.append(line)
                if '"content"' in line:
                    self.has_begun.set()


def test_sigterm_ends_a_stream_with_an_error_and_books_it(tmp_path: Path) -> None:
    with demo(tmp_path, COMPTROLLER_SHUTDOWN_GRACE_S="0") as server:
        asking = Asking(server)
        asking.start()
        assert asking.has_begun.wait(60)
        server.stop()
        asking.join(60)
    last = [line for line in asking.events if line][-1]
    assert json.loads(last.removeprefix("data: "))["error"]["code"] == "server_shutting_down"
    [(decision, code, held, booked)] = _rows(tmp_path)
    assert (decision, code) == ("failed", "server_shutting_down")
    # The provider drains: what it bills is not known, so that what was held is booked.
    assert booked == held > 0


def _rows(folder: Path) -> list[tuple[str, str, int, int]]:
    query = """SELECT decision, code, record.held_nanos, entry.charge_nanos
        FROM decision_records record JOIN ledger_entries entry ON entry.id = record.id"""
    with contextlib.closing(sqlite3.connect(folder / "comptroller.sqlite3")) as connection:
        return connection.execute(query).fetchall()
