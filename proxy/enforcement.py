"""The engine's decisions, and whoever waits for those that come later.

A request that waits and a stream that waits for room are told by effects of what others do. They
are taken after each call that can have any, so that nobody waits longer than the call took.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Final, Protocol

import structlog

from controlplane.clock import Clock
from core_rs import Admission, Ask, Diversion, Effect, Engine, EngineError, Refusal, Settlement
from core_rs import Waiting as EngineWaiting
from proxy.errors import shutting_down

LOG: Final = structlog.get_logger("comptroller.proxy")
# Time itself lets pass what waits for a period, or for its own time to be up. A tenth of a second
# is nothing beside a wait, and a tick costs less than a microsecond for each organization.
TICK_S: Final = 0.1

Outcome = Admission | Refusal | Diversion
Decision = Outcome | EngineWaiting
TellBreaker = Callable[[str, Effect], None]


class Stream(Protocol):
    """A stream whose hold follows it."""

    def granted(self, output_tokens: int) -> None:
        """Hear that there is room."""

    def cut(self, refusal: Refusal) -> None:
        """Hear that it has to end at once."""


class Enforcer:
    """Calls the engine of one process, and passes its effects on; owned by one event loop."""

    def __init__(self, engine: Engine, clock: Clock, tell_breaker: TellBreaker) -> None:
        self.engine = engine
        self._clock = clock
        self._tell_breaker = tell_breaker
        self._waiting: dict[bytes, asyncio.Future[Outcome]] = {}
        self._streams: dict[bytes, Stream] = {}
        # Organizations in which somebody waits or a breaker is open, and the one timer of all.
        self._active: set[int] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._is_stopped = False

    def admit(self, key: int, organization: int, reservation_id: bytes, ask: Ask) -> Decision:
        """Decide on a request at this instant; one that waits is to be awaited at once.

        Raises `EngineError`.
        """
        decision = self.engine.admit(key, reservation_id, ask, *self._now())
        if isinstance(decision, EngineWaiting):
            self._waiting[reservation_id] = asyncio.get_running_loop().create_future()
            self._watch(organization)
        return decision

    async def wait(self, organization: int, reservation_id: bytes) -> Outcome:
        """Wait in line until the engine says what becomes of a request.

        Whoever is cancelled meanwhile leaves the line and holds nothing; so do all at the stop,
        which raises `Problem` (503).
        """
        outcome = self._waiting[reservation_id]
        if self._is_stopped:
            outcome.cancel()
        try:
            return await outcome
        except asyncio.CancelledError:
            self._leave(organization, reservation_id)
            if _is_cancelled_itself():
                raise
            raise shutting_down() from None
        finally:
            self._waiting.pop(reservation_id, None)

    def follow(self, reservation_id: bytes, stream: Stream) -> None:
        """Tell a stream of its effects from here on, until its reservation ends."""
        self._streams[reservation_id] = stream

    def extend(self, organization: int, reservation_id: bytes, output_tokens: int) -> int | None:
        """Let a stream relay so many output tokens; None: it is told when there is room.

        Raises `EngineError`.
        """
        allowed = self.engine.extend(organization, reservation_id, output_tokens, *self._now())
        if allowed is None:
            self._watch(organization)
        self._pass_effects(organization)
        return allowed

    def progress(
        self, organization: int, reservation_id: bytes, cost_nanos: int, tokens: int
    ) -> None:
        """Report what a running request has cost so far.

        Raises `EngineError`.
        """
        self.engine.progress(organization, reservation_id, cost_nanos, tokens, *self._now())
        self._pass_effects(organization)

    def settle(
        self,
        organization: int,
        reservation_id: bytes,
        cost_nanos: int,
        tokens: int,
        output_tokens: int | None,
    ) -> Settlement:
        """Book what a request cost, and let those that wait have what became free.

        Raises `EngineError`.
        """
        settlement = self.engine.settle(
            organization, reservation_id, cost_nanos, tokens, output_tokens, *self._now()
        )
        self._streams.pop(reservation_id, None)
        self._pass_effects(organization)
        return settlement

    def release(self, organization: int, reservation_id: bytes) -> None:
        """End a reservation as if it had never been.

        Raises `EngineError`.
        """
        self.engine.release(organization, reservation_id, *self._now())
        self._streams.pop(reservation_id, None)
        self._pass_effects(organization)

    def policy_changed(self, organization_id: str) -> None:
        """Pass on what a new policy lets happen: a raise, a top-up, a limit that is gone."""
        with suppress(EngineError):
            self._pass_effects(self.engine.organization_index(organization_id))

    def stop(self) -> None:
        """Let no more time pass, and nobody wait."""
        self._is_stopped = True
        if self._timer is not None:
            self._timer.cancel()
        for outcome in self._waiting.values():
            outcome.cancel()

    def _now(self) -> tuple[int, int]:
        return self._clock.wall_ns(), self._clock.mono_ns()

    def _leave(self, organization: int, reservation_id: bytes) -> None:
        outcome = self._waiting[reservation_id]
        try:
            if outcome.done() and not outcome.cancelled():
                # It was admitted while its caller was leaving: nothing has been sent.
                if isinstance(outcome.result(), Admission):
                    self.release(organization, reservation_id)
                return
            if not self.engine.leave(organization, reservation_id, *self._now()):
                # Cancelling the wait cancelled the future that an effect was to resolve.
                with suppress(EngineError):
                    self.release(organization, reservation_id)
            self._pass_effects(organization)
        except EngineError:
            LOG.exception("line_not_left", request_id=reservation_id.hex())

    def _watch(self, organization: int) -> None:
        self._active.add(organization)
        if self._timer is None and not self._is_stopped:
            self._timer = asyncio.get_running_loop().call_later(TICK_S, self._tick)

    def _tick(self) -> None:
        self._timer = None
        for organization in tuple(self._active):
            try:
                if not self.engine.go_on(organization, *self._now()):
                    self._active.discard(organization)
                self._pass_effects(organization)
            except EngineError:
                LOG.exception("line_not_called", organization=organization)
        if self._active and self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(TICK_S, self._tick)

    def _pass_effects(self, organization: int) -> None:
        # What an effect causes may have effects of its own: they come in the next round.
        while self.engine.has_effects(organization):
            for effect in self.engine.take_effects(organization):
                self._pass_effect(organization, effect)

    def _pass_effect(self, organization: int, effect: Effect) -> None:
        if effect.kind == "breaker":
            self._tell_breaker(self.engine.organization_id(organization), effect)
            if effect.is_open:
                self._watch(organization)
            return
        name = effect.reservation_id or b""
        if effect.kind in {"admitted", "ended"}:
            self._end_wait(organization, name, effect)
        elif (stream := self._streams.get(name)) is None:
            LOG.error("effect_of_nobody", kind=effect.kind, request_id=name.hex())
        elif effect.kind == "granted":
            stream.granted(effect.tokens or 0)
        elif isinstance(effect.decision, Refusal):
            stream.cut(effect.decision)

    def _end_wait(self, organization: int, name: bytes, effect: Effect) -> None:
        outcome, decision = self._waiting.get(name), effect.decision
        if decision is None or outcome is None or outcome.done():
            if effect.kind == "admitted":
                # Nobody waits for it any more, and nothing was sent: nothing may stay held.
                with suppress(EngineError):
                    self.engine.release(organization, name, *self._now())
            return
        outcome.set_result(decision)


def _is_cancelled_itself() -> bool:
    """Say whether the current task was cancelled, and not only what it waited for."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
