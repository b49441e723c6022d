"""Subscriptions over WebSocket by the protocol graphql-transport-ws.

https://github.com/enisdenjo/graphql-ws/blob/master/PROTOCOL.md gives messages and close codes. Our
own code and not Strawberry's handler, because what is sent is the shared text of an answer
(`fanout`) and because malformed messages must close the socket, never raise (docs/adr/0006).
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import msgspec
import structlog
from graphql import OperationType
from litestar.types import Receive, Scope, Send

from controlplane.api.authentication import Authenticator
from controlplane.api.cors import CrossOrigin
from controlplane.api.fanout import FanOut, Listener
from controlplane.api.faults import shown
from controlplane.api.http import headers_of
from controlplane.api.operation import Desk, Operation, OperationBody, RequestError
from controlplane.api.sessions import Session, Sessions
from controlplane.authz import Caller
from controlplane.ids import IdSource

PROTOCOL = "graphql-transport-ws"
INIT_TIMEOUT_S = 5.0
MESSAGE_BYTES_MAX = 64 * 1024
SUBSCRIPTIONS_MAX = 10
ID_LENGTH_MAX = 255
PING_EVERY_S = 20.0
# A client that takes nothing of what waits for it for this long is cut off.
STALLED_MAX_S = 30.0
# Answers to pings and the like, which a client that reads nothing could make us pile up.
REPLIES_WAITING_MAX = 100
# A client that reads nothing would keep a closing socket open for ever.
CLOSE_TIMEOUT_S = 5.0
# A frame of control has at most 125 bytes, two of which are the code (RFC 6455, 5.5).
REASON_BYTES_MAX = 123

_GOING_AWAY = 1001
_POLICY_VIOLATION = 1008
_TOO_BIG = 1009
_TRY_LATER = 1013
_BAD_REQUEST = 4400
_UNAUTHORIZED = 4401
_FORBIDDEN = 4403
_BAD_PROTOCOL = 4406
_INIT_TIMEOUT = 4408
_SUBSCRIBER_EXISTS = 4409
_TOO_MANY_INITS = 4429
_INTERNAL = 4500

_LOG = structlog.get_logger("controlplane.api")

ONLY_SUBSCRIPTIONS = "Only subscriptions are answered on a socket; POST queries and mutations."


class Message(msgspec.Struct, frozen=True):
    """A message of a client."""

    type: Literal["connection_init", "ping", "pong", "subscribe", "complete"]
    id: str | None = None
    payload: Any = None


class _Close(Exception):
    """The socket must be closed with this code."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


@dataclass(frozen=True, slots=True)
class SocketParts:
    """What all sockets of a process share."""

    desk: Desk
    fan_out: FanOut
    sessions: Sessions
    authenticator: Authenticator
    cross_origin: CrossOrigin
    ids: IdSource


@dataclass(slots=True)
class _Subscription:
    operation: Operation
    listener: Listener
    # The message up to its payload, which is the same text for all listeners.
    head: str


class SocketHandler:
    """Answers WebSocket connections to the API."""

    def __init__(self, parts: SocketParts) -> None:
        self._parts = parts
        self._connections: set[Connection] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one socket until it closes."""
        await receive()
        if not self._parts.cross_origin.allows(headers_of(scope)):
            # Before it is accepted this answers 403.
            await send({"type": "websocket.close", "code": _POLICY_VIOLATION, "reason": ""})
            return
        offered: Sequence[str] = scope.get("subprotocols", ())  # type: ignore[assignment]
        if PROTOCOL not in offered:
            await _accept(send, None)
            await _close(send, _Close(_BAD_PROTOCOL, f"Subprotocol not acceptable; use {PROTOCOL}"))
            return
        await _accept(send, PROTOCOL)
        connection = Connection(self._parts, receive, send)
        self._connections.add(connection)
        try:
            await connection.serve()
        finally:
            self._connections.discard(connection)

    def stop(self) -> None:
        """Close all sockets; clients connect again elsewhere."""
        for connection in tuple(self._connections):
            connection.end(_Close(_GOING_AWAY, "Shutting down"))


class Connection:
    """One accepted socket: a reader, a writer, and the subscriptions between them."""

    def __init__(self, parts: SocketParts, receive: Receive, send: Send) -> None:
        self._parts = parts
        self._receive = receive
        self._send = send
        self._caller: Caller | None = None
        self._session: Session | None = None
        self._subscriptions: dict[str, _Subscription] = {}
        self._replies: deque[str] = deque()
        self._wake = asyncio.Event()
        self._closing: _Close | None = None
        self._reader: asyncio.Task[None] | None = None
        self._sent = 0

    async def serve(self) -> None:
        """Read and write until either side closes."""
        self._reader = asyncio.create_task(self._read(), name="socket reader")
        writer = asyncio.create_task(self._write(), name="socket writer")
        watch = asyncio.create_task(self._watch(), name="socket watch")
        tasks = {self._reader, writer, watch}
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            if self._closing is not None:
                await asyncio.wait({writer}, timeout=CLOSE_TIMEOUT_S)
        finally:
            for task in tasks:
                task.cancel()
            self._release()
            await asyncio.wait(tasks)
            # A client that vanishes mid-message makes either fail: that is its way to leave.
            for task in tasks:
                if not task.cancelled():
                    task.exception()

    def end(self, close: _Close) -> None:
        """Close the socket as soon as what is being written is written."""
        if self._closing is None:
            self._closing = close
            self._wake.set()
            # Granian sends no close while somebody waits for a message.
            if self._reader is not None:
                self._reader.cancel()

    async def _watch(self) -> None:
        """End when the client has taken nothing of what waits for it."""
        while True:
            sent = self._sent
            await asyncio.sleep(STALLED_MAX_S)
            is_waiting = self._replies or any(
                each.listener.pending for each in self._subscriptions.values()
            )
            if is_waiting and self._sent == sent:
                return

    def _release(self) -> None:
        for name in tuple(self._subscriptions):
            self._forget(name)
        if self._session is not None:
            self._parts.sessions.leave(self._session)

    async def _read(self) -> None:
        try:
            await self._read_init()
            while self._closing is None:
                message = await self._next_message()
                if message is None:
                    return
                await self._handle(message)
        except _Close as close:
            self.end(close)
        except Exception:  # noqa: BLE001 - the edge: whoever is connected is told, masked
            _LOG.exception("socket_failed")
            self.end(_Close(_INTERNAL, "Internal server error"))

    async def _read_init(self) -> None:
        """Wait for the first message, which must say who asks."""
        try:
            async with asyncio.timeout(INIT_TIMEOUT_S):
                while self._caller is None:
                    message = await self._next_message()
                    if message is None:
                        raise _Close(_GOING_AWAY, "")
                    await self._handle_early(message)
        except TimeoutError:
            raise _Close(_INIT_TIMEOUT, "Connection initialisation timeout") from None

    async def _handle_early(self, message: Message) -> None:
        if message.type == "ping":
            self._reply({"type": "pong"})
        elif message.type == "subscribe":
            raise _Close(_UNAUTHORIZED, "Unauthorized")
        elif message.type == "connection_init":
            await self._init(message.payload)

    async def _init(self, payload: object) -> None:
        token = _token_of(payload)
        caller = None if token is None else await self._parts.authenticator.caller_of(token)
        if caller is None:
            raise _Close(_FORBIDDEN, "Forbidden")
        session = self._parts.sessions.enter(
            caller, lambda: self.end(_Close(_FORBIDDEN, "Forbidden"))
        )
        if session is None:
            raise _Close(_TRY_LATER, "Too many connections")
        self._caller, self._session = caller, session
        self._reply({"type": "connection_ack"})

    async def _handle(self, message: Message) -> None:
        if message.type == "connection_init":
            raise _Close(_TOO_MANY_INITS, "Too many initialisation requests")
        if message.type == "ping":
            self._reply({"type": "pong"})
        elif message.type == "subscribe":
            self._subscribe(_checked_id(message), message.payload)
        elif message.type == "complete":
            self._forget(_checked_id(message))

    def _subscribe(self, name: str, payload: object) -> None:
        if name in self._subscriptions:
            raise _Close(_SUBSCRIBER_EXISTS, f"Subscriber for {name[:50]} already exists")
        assert self._caller is not None
        request_id = str(self._parts.ids.new_uuid())
        try:
            if len(self._subscriptions) >= SUBSCRIPTIONS_MAX:
                raise RequestError(429, f"At most {SUBSCRIPTIONS_MAX} subscriptions on a socket.")  # noqa: TRY301
            operation = self._parts.desk.accept(
                _body_of(payload), self._caller, (OperationType.SUBSCRIPTION,), ONLY_SUBSCRIPTIONS
            )
            listener = self._parts.fan_out.listen(
                operation, self._caller, request_id, self._wake.set
            )
        except RequestError as error:
            errors = shown(error.errors, request_id)
            self._reply({"id": name, "type": "error", "payload": errors})
            return
        head = f'{{"id":{msgspec.json.encode(name).decode()},"type":"next","payload":'
        self._subscriptions[name] = _Subscription(operation, listener, head)

    def _forget(self, name: str) -> None:
        found = self._subscriptions.pop(name, None)
        if found is not None and self._caller is not None:
            self._parts.fan_out.leave(found.operation, self._caller, found.listener)

    async def _next_message(self) -> Message | None:
        try:
            event = await self._receive()
        except Exception:  # noqa: BLE001 - whatever a server raises for a client that vanished
            return None
        if event["type"] != "websocket.receive":
            return None
        text = event.get("text")
        if text is None:
            raise _Close(_BAD_REQUEST, "Messages are text")
        if len(text) > MESSAGE_BYTES_MAX or len(text.encode()) > MESSAGE_BYTES_MAX:
            raise _Close(_TOO_BIG, f"A message has at most {MESSAGE_BYTES_MAX} bytes")
        try:
            return msgspec.json.decode(text, type=Message)
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            raise _Close(_BAD_REQUEST, "Invalid message received") from None

    def _reply(self, message: dict[str, Any]) -> None:
        if len(self._replies) >= REPLIES_WAITING_MAX:
            raise _Close(_POLICY_VIOLATION, "Too many messages at once")
        self._replies.append(msgspec.json.encode(message).decode())
        self._wake.set()

    async def _write(self) -> None:
        while True:
            try:
                async with asyncio.timeout(PING_EVERY_S):
                    await self._wake.wait()
            except TimeoutError:
                self._replies.append('{"type":"ping"}')
            self._wake.clear()
            await self._write_all()
            if self._closing is not None:
                await _close(self._send, self._closing)
                return

    async def _write_all(self) -> None:
        """Write all there is, one answer of each subscription in turn."""
        more = True
        while more and self._closing is None:
            more = False
            while self._replies:
                await self._send_text(self._replies.popleft())
            for name, each in tuple(self._subscriptions.items()):
                pending = each.listener.pending
                if pending:
                    await self._send_text(f"{each.head}{pending.popleft()}}}")
                    more = True
                elif each.listener.is_over:
                    self._finish(name, each.listener)

    def _finish(self, name: str, listener: Listener) -> None:
        self._forget(name)
        last: dict[str, Any] = {"id": name, "type": "complete"}
        if listener.errors is not None:
            last = {"id": name, "type": "error", "payload": listener.errors}
        self._replies.append(msgspec.json.encode(last).decode())
        self._wake.set()

    async def _send_text(self, text: str) -> None:
        await self._send({"type": "websocket.send", "text": text, "bytes": None})
        self._sent += 1


def _token_of(payload: object) -> str | None:
    """Read the token from the payload of `connection_init`.

    Browsers cannot set headers of a WebSocket, so it is here: `{"authorization": "Bearer cpat_…"}`.
    """
    if not isinstance(payload, Mapping):
        return None
    fields = {name.lower(): value for name, value in payload.items()}
    value = fields.get("authorization")
    if not isinstance(value, str):
        return None
    scheme, _, token = value.partition(" ")
    return token.strip() if scheme.lower() == "bearer" else None


def _checked_id(message: Message) -> str:
    if message.id is None or not 1 <= len(message.id) <= ID_LENGTH_MAX:
        raise _Close(_BAD_REQUEST, f"An id has 1 to {ID_LENGTH_MAX} characters")
    return message.id


def _body_of(payload: object) -> OperationBody:
    try:
        return msgspec.convert(payload, OperationBody)
    except msgspec.ValidationError:
        raise _Close(_BAD_REQUEST, "Invalid message received") from None


async def _accept(send: Send, subprotocol: str | None) -> None:
    await send({"type": "websocket.accept", "subprotocol": subprotocol, "headers": []})


async def _close(send: Send, close: _Close) -> None:
    reason = close.reason.encode()[:REASON_BYTES_MAX].decode(errors="ignore")
    await send({"type": "websocket.close", "code": close.code, "reason": reason})
