"""Open connections of callers, ended when what they may see changes.

A token that is revoked or expires, and a member whose role or team changes, ends the connections
that were opened with it. Every second one query asks for all of them; the answer of the same
process is not waited for, so that other processes' changes count as soon.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import structlog

from controlplane.access.service import callers_of_tokens
from controlplane.authz import Caller, sight
from controlplane.context import Installation
from controlplane.db import Database

CHECK_EVERY_S = 1.0
# A database that takes longer counts as one that does not answer.
CHECK_TIMEOUT_S = 1.0
# Without an answer of the database for this long, nobody is known to be allowed anything.
UNCHECKED_CHECKS_MAX = 5
SESSIONS_MAX = 10_000
SESSIONS_PER_USER_MAX = 100

Sleep = Callable[[float], Awaitable[None]]

_LOG = structlog.get_logger("controlplane.api")


@dataclass(frozen=True, slots=True, eq=False)
class Session:
    """One open connection; `end` is called at most once and must not block."""

    caller: Caller
    end: Callable[[], None]


class Sessions:
    """The open connections of a process."""

    def __init__(
        self, database: Database, installation: Installation, *, sleep: Sleep = asyncio.sleep
    ) -> None:
        self._database = database
        self._installation = installation
        self._sleep = sleep
        self._open: set[Session] = set()
        self._checking: asyncio.Task[None] | None = None

    def enter(self, caller: Caller, end: Callable[[], None]) -> Session | None:
        """Put a connection under watch; None when this caller, or this process, has too many."""
        own = sum(1 for each in self._open if each.caller.user_id == caller.user_id)
        if len(self._open) >= SESSIONS_MAX or own >= SESSIONS_PER_USER_MAX:
            return None
        session = Session(caller, end)
        self._open.add(session)
        if self._checking is None or self._checking.done():
            self._checking = asyncio.create_task(self._check_often(), name="open sessions")
        return session

    def leave(self, session: Session) -> None:
        """Let go of a connection that has ended."""
        self._open.discard(session)

    async def stop(self) -> None:
        """Watch no more."""
        if self._checking is not None:
            self._checking.cancel()
            await asyncio.wait({self._checking})

    async def check(self) -> None:
        """End the connections of callers who may not see any more what they could see."""
        # Those that are opened while the database answers are not in its answer.
        asked = tuple(self._open)
        token_ids = {each.caller.token_id for each in asked} - {None}
        async with self._database.read() as session:
            now = self._installation.now()
            known = await callers_of_tokens(session, [each for each in token_ids if each], now)
        for each in asked:
            current = None if each.caller.token_id is None else known.get(each.caller.token_id)
            is_changed = current is None or sight(current) != sight(each.caller)
            if is_changed and each in self._open:
                self._end(each)

    async def _check_often(self) -> None:
        unanswered = 0
        while self._open:
            await self._sleep(CHECK_EVERY_S)
            try:
                async with asyncio.timeout(CHECK_TIMEOUT_S):
                    await self.check()
                unanswered = 0
            except Exception:  # noqa: BLE001 - the edge of a task that must outlive any store
                unanswered += 1
                _LOG.warning("sessions_not_checked", exc_info=True)
            if unanswered >= UNCHECKED_CHECKS_MAX:
                for each in tuple(self._open):
                    self._end(each)

    def _end(self, session: Session) -> None:
        self._open.discard(session)
        session.end()
