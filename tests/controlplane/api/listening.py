"""Listening to shared subscriptions as a socket or an event stream does."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from graphql import OperationType

from controlplane.api.fanout import FanOut, Listener
from controlplane.api.operation import Operation
from controlplane.authz import Caller


class Ear:
    """Listens to a subscription and waits for what it says."""

    def __init__(self, fan_out: FanOut, operation: Operation, caller: Caller) -> None:
        self._fan_out, self._operation, self._caller = fan_out, operation, caller
        self.woken = asyncio.Event()
        self.listener: Listener = fan_out.listen(operation, caller, "r", self.woken.set)

    async def next(self) -> Any:
        """Wait for the next answer; gives the errors at the end."""
        async with asyncio.timeout(20):
            while not self.listener.pending and not self.listener.is_over:
                self.woken.clear()
                await self.woken.wait()
        if self.listener.pending:
            return json.loads(self.listener.pending.popleft())
        return {"ended": self.listener.errors}

    def leave(self) -> None:
        self._fan_out.leave(self._operation, self._caller, self.listener)


def operation_of(
    text: str, variables: dict[str, Any] | None = None, root_field: str = ""
) -> Operation:
    return Operation(
        text,
        None,
        variables or {},
        OperationType.SUBSCRIPTION,
        root_field,
        None,  # type: ignore[arg-type]
    )
