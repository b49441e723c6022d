"""A server that is told to stop ends what is running, tells its callers, and loses nothing."""

from __future__ import annotations

import contextlib
import json
import sqlite3
import threading
import time
from pathlib import Path

import httpx
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

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


LIVE = """subscription($place: ID!) { liveSpend(organizationId: $place) { seq } }"""
STOPPED_WITHIN_S = 20
NO_CLOSE_FRAME = 1006


def test_sigterm_closes_sockets_and_event_streams(tmp_path: Path) -> None:
    """Neither ends by itself: the server would wait for them until it is killed."""
    with demo(tmp_path) as server:
        authorization = f"Bearer {server.secrets['COMPTROLLER_TOKEN']}"
        body = {"query": LIVE, "variables": {"place": _place(server, authorization)}}
        with connect(
            f"ws://127.0.0.1:{server.port}/graphql", subprotocols=["graphql-transport-ws"]
        ) as socket:
            init = {"type": "connection_init", "payload": {"authorization": authorization}}
            socket.send(json.dumps(init))
            socket.send(json.dumps({"type": "subscribe", "id": "1", "payload": body}))
            assert json.loads(socket.recv(20)) == {"type": "connection_ack"}
            assert json.loads(socket.recv(20))["type"] == "next"
            lines = _event_stream(server, authorization, body)
            begun = time.monotonic()
            server.stop()
            assert time.monotonic() - begun < STOPPED_WITHIN_S
            # The server may close the connection before our message is out.
            assert _close_code(socket) in {1001, NO_CLOSE_FRAME}
            lines.join(20)
            assert [line for line in lines.seen if line][-1] == "data: "


def _close_code(socket: ClientConnection) -> int:
    try:
        while True:
            socket.recv(20)
    except ConnectionClosed as closed:
        return NO_CLOSE_FRAME if closed.rcvd is None else closed.rcvd.code


class _Lines(threading.Thread):
    """Reads an event stream to its end."""

    def __init__(self, request: httpx.Request) -> None:
        super().__init__()
        self.has_begun = threading.Event()
        self.seen: list[str] = []
        self._request = request

    def run(self) -> None:
        with httpx.Client() as client:
            answer = client.send(self._request, stream=True)
            for line in answer.iter_lines():
                self.seen.append(line.rstrip("\n"))
                self.has_begun.set()


def _event_stream(server: Demo, authorization: str, body: dict[str, object]) -> _Lines:
    headers = {"authorization": authorization, "accept": "text/event-stream"}
    request = httpx.Request(
        "POST",
        f"http://127.0.0.1:{server.port}/graphql",
        json=body,
        headers=headers,
        extensions={"timeout": {"read": 60}},
    )
    lines = _Lines(request)
    lines.start()
    assert lines.has_begun.wait(20)
    return lines


def _place(server: Demo, authorization: str) -> str:
    answer = httpx.post(
        f"http://127.0.0.1:{server.port}/graphql",
        json={"query": '{ organization(slug: "demo") { id } }'},
        headers={"authorization": authorization},
    )
    return str(answer.json()["data"]["organization"]["id"])
