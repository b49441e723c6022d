"""Subscriptions as server-sent events: one POST, one stream (GraphQL over SSE, distinct mode).

https://github.com/enisdenjo/graphql-sse/blob/master/PROTOCOL.md: events `next` and `complete`. For
servers and curl; a browser's EventSource cannot send a token.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

import msgspec
from litestar.types import Receive, Send

from controlplane.api.fanout import FanOut, Listener
from controlplane.api.http import EVENT_STREAM, Headers, Refused, encoded_headers
from controlplane.api.operation import Operation
from controlplane.api.sessions import Sessions
from controlplane.authz import Caller

# Proxies between us and the client close what is silent for a minute.
KEEP_ALIVE_S = 15.0
# A client that reads nothing for this long is cut off.
STALLED_MAX_S = 30.0
_KEEP_ALIVE = b":\n\n"
_COMPLETE = b"event: complete\ndata: \n\n"


@dataclass(frozen=True, slots=True)
class EventStreams:
    """Sends subscriptions as event streams."""

    fan_out: FanOut
    sessions: Sessions

    async def stream(
        self,
        operation: Operation,
        caller: Caller,
        request_id: str,
        receive: Receive,
        send: Send,
        headers: Headers,
    ) -> None:
        """Send answers until the subscription or the client ends, or the caller may no more.

        Raises `Refused` and `RequestError` before anything is sent.
        """
        wake = asyncio.Event()
        ended = asyncio.Event()

        def end() -> None:
            ended.set()
            wake.set()

        session = self.sessions.enter(caller, end)
        if session is None:
            raise Refused(503, "RATE_LIMITED", "Too many connections; try again later.")
        try:
            listener = self.fan_out.listen(operation, caller, request_id, wake.set)
            gone = asyncio.create_task(_until_gone(receive, end), name="event stream client")
            try:
                await _start(send, headers)
                await _send_all(send, listener, wake, ended)
            except TimeoutError:
                # The answer has begun: that it is left unfinished is all that can be told.
                return
            finally:
                gone.cancel()
                self.fan_out.leave(operation, caller, listener)
        finally:
            self.sessions.leave(session)


async def send_single(send: Send, payload: bytes, headers: Headers) -> None:
    """Send the one answer of a query or mutation as an event stream."""
    await _start(send, headers)
    await _send(send, _event(payload) + _COMPLETE)
    await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _send_all(
    send: Send, listener: Listener, wake: asyncio.Event, ended: asyncio.Event
) -> None:
    while not ended.is_set():
        # A slow reader of a busy feed never catches up: its end must not wait for that.
        while listener.pending and not ended.is_set():
            await _send(send, _event(listener.pending.popleft().encode()))
        # What happened while something was sent has woken nobody: `wake` is cleared only now.
        if listener.is_over or ended.is_set():
            break
        wake.clear()
        try:
            async with asyncio.timeout(KEEP_ALIVE_S):
                await wake.wait()
        except TimeoutError:
            await _send(send, _KEEP_ALIVE)
    if listener.errors is not None:
        await _send(send, _event(msgspec.json.encode({"errors": listener.errors})))
    await _send(send, _COMPLETE)
    await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _start(send: Send, headers: Headers) -> None:
    fields = (
        ("content-type", f"{EVENT_STREAM}; charset=utf-8"),
        ("cache-control", "no-store"),
        # Nginx would hold events back until its buffer is full.
        ("x-accel-buffering", "no"),
        *headers,
    )
    await send({"type": "http.response.start", "status": 200, "headers": encoded_headers(fields)})
    # A comment makes the head leave at once, so that the client knows it is heard.
    await _send(send, _KEEP_ALIVE)


async def _until_gone(receive: Receive, end: Callable[[], None]) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    end()


async def _send(send: Send, body: bytes) -> None:
    async with asyncio.timeout(STALLED_MAX_S):
        await send({"type": "http.response.body", "body": body, "more_body": True})


def _event(payload: bytes) -> bytes:
    return b"event: next\ndata: " + payload + b"\n\n"
