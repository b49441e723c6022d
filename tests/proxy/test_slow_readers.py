"""Clients that take nothing of a stream are cut off and billed like any that leaves."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import Iterator
from itertools import count
from typing import Any

import pytest

from comptroller.simulator.running import RunningSimulator
from proxy.client import Client, ClientGone
from proxy.settings import ProxySettings
from proxy.timeouts import Timeouts
from tests.proxy.raw_http import JSON, head
from tests.proxy.untouched import wait_until
from tests.stack import Stack, running_stack

# Far more than the buffers between the proxy and a client hold.
OUTPUT_TOKENS = 32_768
RECEIVE_BUFFER_BYTES = 4096
DRAIN_S = 10
_NUMBERS = count(1)


@pytest.fixture(scope="module")
def hasty(
    tmp_path_factory: pytest.TempPathFactory, shared_provider: RunningSimulator
) -> Iterator[Stack]:
    """An installation that waits a second for a reader."""
    folder = tmp_path_factory.mktemp("hasty")
    with running_stack(
        folder, shared_provider, organization=False, slow_reader_timeout_s=1
    ) as running:
        yield running


def _request(secret: str) -> bytes:
    fields = {
        "model": "gpt-4.1",
        "messages": [{"role": "user", "content": f"[[sim output={OUTPUT_TOKENS}]]"}],
        "stream": True,
    }
    body = json.dumps(fields).encode()
    return head(secret, JSON, b"content-length: %d" % len(body)) + body


def _idle_reader(stack: Stack) -> socket.socket:
    """Connect with a small buffer, so that unread bytes stay with the server."""
    host, port = stack.address.removeprefix("http://").split(":")
    reader = socket.socket()
    reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)
    reader.settimeout(30)
    reader.connect((host, int(port)))
    return reader


def _what_was_kept(reader: socket.socket) -> bytes:
    """Read what waits in buffers, for a while: through so small a window it may take minutes."""
    ends_at_s = time.monotonic() + DRAIN_S
    reader.settimeout(DRAIN_S)
    pieces = []
    try:
        while time.monotonic() < ends_at_s and (piece := reader.recv(65_536)):
            pieces.append(piece)
    except (ConnectionError, TimeoutError):
        pass
    return b"".join(pieces)


def test_a_reader_that_takes_nothing_is_cut_and_billed_what_the_provider_bills(
    hasty: Stack, provider: RunningSimulator
) -> None:
    stack = hasty.tenant(f"hasty-{next(_NUMBERS)}")
    with _idle_reader(stack) as reader:
        reader.sendall(_request(stack.key()[1]))
        wait_until(lambda: len(stack.records()) == 1)
        taken = _what_was_kept(reader)
    assert b"HTTP/1.1 200" in taken
    assert b"[DONE]" not in taken
    [record] = stack.records()
    [entry] = stack.ledger()
    assert record.client_disconnected
    assert (entry.usage_source, entry.output_tokens) == ("provider", OUTPUT_TOKENS)
    assert entry.charge_nanos == provider.bill()["total_nanos"]
    assert stack.open_reservations() == 0


async def test_the_last_part_of_an_answer_waits_for_no_reader_either() -> None:
    """Not over HTTP: whether the buffers are full at the last part, no test can arrange."""
    left: list[bool] = []

    async def receive() -> Any:
        raise AssertionError

    async def never_taken(_message: object) -> None:
        await asyncio.Event().wait()

    scope: Any = {"headers": []}
    client = Client(scope, receive, never_taken, ProxySettings(slow_reader_timeout_s=1), Timeouts())
    client.on_gone = lambda: left.append(True)
    await client.end(b"data: [DONE]\n\n")
    assert client.is_gone
    assert left == [True]
    await client.end()
    with pytest.raises(ClientGone):
        await client.send(b"more")
