"""Subscriptions executed once for all who ask the same and may see the same.

What is shared is the text of an answer, so the key of a source must hold all that an answer can
depend on: document, operation, variables, and `authz.sight` of the caller. A wrong key would show
one tenant another's figures; `tests/controlplane/api/test_fanout.py` holds it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Hashable
from contextlib import aclosing
from typing import Any
from uuid import UUID

import msgspec
from graphql import GraphQLError
from strawberry.types import ExecutionResult
from strawberry.types.execution import PreExecutionError

from controlplane.api.faults import shown
from controlplane.api.operation import Operation, RequestError
from controlplane.api.request import Backend, Context
from controlplane.api.schema import Schema
from controlplane.authz import Caller, sight
from controlplane.canonical import canonical_hash

SOURCES_MAX = 5_000
# So that nobody alone takes all of them; who follows more asks for them together.
SOURCES_PER_USER_MAX = 100
# Of a stream of events a slow listener misses the oldest; of snapshots it gets only the newest.
EVENTS_WAITING_MAX = 32
# Fields whose answers replace each other, so that the last one tells a newcomer everything.
_SNAPSHOTS = frozenset({"liveSpend"})


class Listener:
    """What one subscriber has still to be sent: answers, then perhaps errors, then the end.

    `wake` is called when there is something new; it must not block.
    """

    __slots__ = ("errors", "is_over", "pending", "wake")

    def __init__(self, wake: Callable[[], None], waiting_max: int) -> None:
        self.wake = wake
        self.pending: deque[str] = deque(maxlen=waiting_max)
        self.errors: list[dict[str, Any]] | None = None
        self.is_over = False

    def deliver(self, payload: str) -> None:
        """Take an answer; where there are too many the oldest is dropped."""
        self.pending.append(payload)
        self.wake()

    def end(self, errors: list[dict[str, Any]] | None = None) -> None:
        """Learn that nothing more comes, and why when it is not for the subscription's own end."""
        self.errors = errors
        self.is_over = True
        self.wake()


class Source:
    """One running subscription and those who listen to it."""

    def __init__(self, waiting_max: int, *, is_snapshot: bool, user_id: UUID | None) -> None:
        self.user_id = user_id
        self.listeners: set[Listener] = set()
        self.waiting_max = waiting_max
        self.task: asyncio.Task[None] | None = None
        self._is_snapshot = is_snapshot
        self._latest: str | None = None

    def add(self, wake: Callable[[], None]) -> Listener:
        """Let one more listen; a newcomer to snapshots is sent the latest at once."""
        listener = Listener(wake, self.waiting_max)
        self.listeners.add(listener)
        if self._latest is not None:
            listener.deliver(self._latest)
        return listener

    def deliver(self, payload: str) -> None:
        """Send an answer to all."""
        if self._is_snapshot:
            self._latest = payload
        for listener in self.listeners:
            listener.deliver(payload)

    def end(self, errors: list[dict[str, Any]] | None = None) -> None:
        """Tell all that nothing more comes."""
        for listener in tuple(self.listeners):
            listener.end(errors)


class FanOut:
    """All subscriptions that run in this process."""

    def __init__(self, schema: Schema, backend: Backend) -> None:
        self._schema = schema
        self._backend = backend
        self._sources: dict[Hashable, Source] = {}
        self._is_stopping = False

    @property
    def sources_count(self) -> int:
        """How many subscriptions are executed."""
        return len(self._sources)

    def listen(
        self, operation: Operation, caller: Caller, request_id: str, wake: Callable[[], None]
    ) -> Listener:
        """Begin to listen; the subscription is executed only if nobody listens to it yet.

        Raises `RequestError`: 429 when too many run for this caller, 503 for all, or at the end.
        """
        key = sharing_key(operation, caller)
        source = self._sources.get(key)
        if source is None:
            own = sum(1 for each in self._sources.values() if each.user_id == caller.user_id)
            if own >= SOURCES_PER_USER_MAX:
                reason = f"At most {SOURCES_PER_USER_MAX} different subscriptions at once."
                raise RequestError(429, reason, code="RATE_LIMITED")
            if self._is_stopping or len(self._sources) >= SOURCES_MAX:
                raise RequestError(503, "No more subscriptions begin here; try again later.")
            source = self._sources[key] = _new_source(operation, caller)
            context = Context(self._backend, caller, request_id, operation.charge)
            running = self._run(key, source, operation, context)
            source.task = asyncio.create_task(running, name="subscription")
        return source.add(wake)

    def leave(self, operation: Operation, caller: Caller, listener: Listener) -> None:
        """Listen no more; a subscription that nobody listens to ends."""
        key = sharing_key(operation, caller)
        source = self._sources.get(key)
        if source is None or listener not in source.listeners:
            return
        source.listeners.discard(listener)
        if not source.listeners:
            del self._sources[key]
            if source.task is not None:
                source.task.cancel()

    async def stop(self) -> None:
        """End all subscriptions, and begin no more."""
        self._is_stopping = True
        sources, self._sources = list(self._sources.values()), {}
        tasks = [source.task for source in sources if source.task is not None]
        for task in tasks:
            task.cancel()
        for source in sources:
            source.end()
        if tasks:
            await asyncio.wait(tasks)

    async def _run(
        self, key: Hashable, source: Source, operation: Operation, context: Context
    ) -> None:
        try:
            errors = await self._relay(source, operation, context)
        except Exception as error:  # noqa: BLE001 - the edge: listeners are told, masked and logged
            errors = shown((_as_graphql(error),), context.request_id)
        if self._sources.get(key) is source:
            del self._sources[key]
        source.end(errors)

    async def _relay(
        self, source: Source, operation: Operation, context: Context
    ) -> list[dict[str, Any]] | None:
        """Deliver answers until there are no more; gives the errors it could not begin with."""
        results = await self._schema.subscribe(
            operation.text,
            variable_values=operation.variables,
            context_value=context,
            operation_name=operation.name,
        )
        async with aclosing(results) as stream:
            async for result in stream:
                if isinstance(result, PreExecutionError):
                    return shown(tuple(result.errors or ()), context.request_id)
                source.deliver(_payload(result, context.request_id))
        return None


def sharing_key(operation: Operation, caller: Caller) -> Hashable:
    """Name what an answer to this caller depends on."""
    variables = canonical_hash(operation.variables)
    return (operation.text, operation.name, variables, sight(caller))


def _new_source(operation: Operation, caller: Caller) -> Source:
    is_snapshot = operation.root_field in _SNAPSHOTS
    waiting_max = 1 if is_snapshot else EVENTS_WAITING_MAX
    return Source(waiting_max, is_snapshot=is_snapshot, user_id=caller.user_id)


def _payload(result: ExecutionResult, request_id: str) -> str:
    body: dict[str, Any] = {"data": result.data}
    if result.errors:
        body["errors"] = shown(tuple(result.errors), request_id)
    return msgspec.json.encode(body).decode()


def _as_graphql(error: Exception) -> GraphQLError:
    if isinstance(error, GraphQLError):
        return error
    return GraphQLError(str(error), original_error=error)
