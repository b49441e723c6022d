"""Event streams end when they must, however slowly they are read."""

from __future__ import annotations

import asyncio
from typing import Any

from controlplane.api.fanout import Listener
from controlplane.api.sse import _send_all


async def test_a_reader_that_never_catches_up_is_ended_all_the_same() -> None:
    """Whose token is revoked gets no more of a feed that is faster than it reads."""
    ended = asyncio.Event()
    listener = Listener(lambda: None, waiting_max=2)
    listener.deliver("1")
    sent: list[bytes] = []

    async def send(message: Any) -> None:
        sent.append(message["body"])
        if len(sent) == 3:
            ended.set()
        assert len(sent) < 10, "it goes on"
        listener.deliver(str(len(sent) + 1))

    await _send_all(send, listener, asyncio.Event(), ended)
    # At once, not when the stream is next kept alive.
    nexts = [f"event: next\ndata: {number}\n\n".encode() for number in (1, 2, 3)]
    assert sent == [*nexts, b"event: complete\ndata: \n\n", b""]
