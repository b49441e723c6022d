"""Requests written byte by byte, for what no HTTP client would send."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPResponse
from typing import Any

from tests.stack import Stack

TIMEOUT_S = 30
PATH = b"/v1/chat/completions"
BODY = json.dumps(
    {"model": "sim-small", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 3}
).encode()
LENGTH = b"content-length: %d" % len(BODY)
CHUNKED = b"transfer-encoding: chunked"
JSON = b"content-type: application/json"


@dataclass(frozen=True)
class Answer:
    """One answer, and whether the server closed the connection after it."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def error(self) -> dict[str, Any]:
        """The error object of the body."""
        error: dict[str, Any] = json.loads(self.body)["error"]
        return error


def head(secret: str | None, *lines: bytes, method: bytes = b"POST", path: bytes = PATH) -> bytes:
    """Write a request head, with a bearer token unless it is None."""
    bearer = () if secret is None else (b"authorization: Bearer " + secret.encode(),)
    return b"\r\n".join(
        [method + b" " + path + b" HTTP/1.1", b"host: x", *bearer, *lines, b"", b""]
    )


def chunk(data: bytes) -> bytes:
    """Write one chunk."""
    return b"%x\r\n%s\r\n" % (len(data), data)


@contextmanager
def connected(stack: Stack) -> Iterator[socket.socket]:
    """Connect to the server."""
    host, port = stack.address.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=TIMEOUT_S) as connection:
        yield connection


def read_answer(connection: socket.socket, method: str = "POST") -> Answer:
    """Read one answer."""
    answer = HTTPResponse(connection, method=method)
    answer.begin()
    headers = {name.lower(): value for name, value in answer.getheaders()}
    return Answer(answer.status, headers, answer.read())


def ask(stack: Stack, request: bytes, *, method: str = "POST") -> Answer:
    """Send these bytes and read one answer."""
    with connected(stack) as connection:
        connection.sendall(request)
        return read_answer(connection, method)
