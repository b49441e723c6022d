"""The guard of a reservation: whatever ends a request, its reservation ends once.

It is a synchronous context manager on purpose. Cancellation can only strike at an `await`, and
between the end of a request and its settlement there is none.
"""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Final, Self

import structlog

from controlplane.clock import Clock
from controlplane.ledger.recorder import Recorder
from core_rs import (
    Admission,
    ChatAnswer,
    Engine,
    EngineError,
    PriceSheet,
    ReportedUsage,
    StreamMeter,
    Usage,
)
from proxy.client import ClientGone
from proxy.course import NOTHING, Course, Measured
from proxy.errors import Problem, internal, shutting_down
from proxy.routing import Deployment
from proxy.wire.openai_chat import ChatRequest

LOG: Final = structlog.get_logger("comptroller.proxy")
# Metered limits see a running stream at this interval; counting its new text costs microseconds.
PROGRESS_INTERVAL_NS: Final = 250_000_000


class Books:
    """What a reservation needs to be ended: the engine, the records, the clock."""

    def __init__(self, engine: Engine, recorder: Recorder, clock: Clock) -> None:
        self.engine = engine
        self.recorder = recorder
        self.clock = clock


class Reservation:
    """Money held for one request, until the block that uses it is left."""

    def __init__(
        self,
        books: Books,
        course: Course,
        admission: Admission,
        sheet: PriceSheet,
        price: int,
        chat: ChatRequest,
        deployment: Deployment,
    ) -> None:
        self._books = books
        self._course = course
        self._admission = admission
        self._sheet = sheet
        self._price = price
        self.chat = chat
        self.deployment = deployment
        self._is_open = True
        self._was_sent = False
        self._was_refused_upstream = False
        self._meter: StreamMeter | None = None
        self._progress_at_ns = course.mono_ns
        self._input_counted: int | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if not self._is_open:
            return
        if error is not None and self._course.problem is None:
            self._course.problem = _problem_of(error)
            self._course.client_left |= isinstance(error, ClientGone)
        if self._was_sent:
            self._settle(self._best_knowledge())
        else:
            self._release()

    def sending(self) -> None:
        """Note that the first byte is about to go upstream: from here on it may cost money."""
        self._was_sent = True

    def refused_upstream(self) -> None:
        """Note that the provider answered with an error, for which it bills nothing."""
        self._was_refused_upstream = True

    def streaming(self, meter: StreamMeter) -> None:
        """Note what counts the stream from here on."""
        self._meter = meter

    def progress(self) -> bool:
        """Report a stream's cost so far, now and then; False when it has outgrown what it holds."""
        now_ns = self._books.clock.mono_ns()
        if now_ns - self._progress_at_ns < PROGRESS_INTERVAL_NS or self._meter is None:
            return True
        self._progress_at_ns = now_ns
        so_far = self._counted(self._meter, tail_tokens=0)
        self._books.engine.progress(
            self._course.principal.organization,
            self._course.request_id,
            so_far.cost_nanos,
            so_far.tokens,
            self._books.clock.wall_ns(),
            now_ns,
        )
        return so_far.cost_nanos <= self._admission.spend_nanos

    def finish_answer(self, answer: ChatAnswer) -> Measured:
        """Settle an answer in one piece by its usage, else by our own count."""
        measured = self._reported(answer.usage)
        if measured is None:
            measured = self._priced(answer.generated_tokens or answer.generated_bytes)
        self._settle(measured)
        return measured

    def finish_stream(self, meter: StreamMeter) -> Measured:
        """Settle a stream that came to its end by its usage, else by our own count."""
        measured = self._reported(meter.usage) or self._counted(meter, tail_tokens=0)
        self._settle(measured)
        return measured

    def _best_knowledge(self) -> Measured:
        """Measure a request that did not end as it should: never below what is billed."""
        if self._was_refused_upstream:
            return NOTHING
        meter = self._meter
        if meter is None:
            return self._held()
        reported = self._reported(meter.usage)
        if reported is not None:
            return reported
        if not self.deployment.all_tokens_visible:
            return self._held()
        counted = self._counted(meter, tail_tokens=self.deployment.abort_tail_tokens)
        return counted if counted.cost_nanos <= self._admission.spend_nanos else self._held()

    def _reported(self, usage: ReportedUsage | None) -> Measured | None:
        if usage is None:
            return None
        try:
            cost_nanos = self._sheet.cost(
                self._price,
                Usage(
                    input_tokens=usage.input_tokens,
                    output_tokens=usage.output_tokens,
                    cache_read_tokens=usage.cache_read_tokens,
                    cache_write_tokens=usage.cache_write_tokens,
                    input_audio_tokens=usage.input_audio_tokens,
                    output_audio_tokens=usage.output_audio_tokens,
                    output_reasoning_tokens=usage.reasoning_tokens,
                ),
                self._course.wall_ns,
            )
        except EngineError as error:
            # A usage that contradicts itself is replaced by our own count, and flagged as such.
            LOG.warning("usage_not_priced", code=error.code, model=self.chat.model)
            return None
        return Measured(
            cost_nanos,
            usage.input_tokens,
            usage.output_tokens,
            "provider",
            cached_tokens=usage.cache_read_tokens,
            cache_write_tokens=usage.cache_write_tokens,
            reasoning_tokens=usage.reasoning_tokens,
        )

    def _counted(self, meter: StreamMeter, *, tail_tokens: int) -> Measured:
        return self._priced(meter.generated_tokens() + tail_tokens)

    def _priced(self, output_tokens: int) -> Measured:
        input_tokens = self._input_tokens()
        cost_nanos = self._sheet.cost(
            self._price,
            Usage(input_tokens=input_tokens, output_tokens=output_tokens),
            self._course.wall_ns,
        )
        return Measured(cost_nanos, input_tokens, output_tokens, "own_count")

    def _input_tokens(self) -> int:
        """Count the input once, exactly where its vocabulary is known."""
        if self._input_counted is None:
            vocabulary = self.deployment.vocabulary
            self._input_counted = (
                self.chat.input_tokens_max
                if vocabulary is None
                else self.chat.input_tokens_counted(vocabulary)
            )
        return self._input_counted

    def _held(self) -> Measured:
        return Measured(self._admission.spend_nanos, self._admission.tokens, 0, "held")

    def _settle(self, measured: Measured) -> None:
        """Book and record; the record follows at once, so that the ledger sees them in order."""
        self._is_open = False
        settlement = self._books.engine.settle(
            self._course.principal.organization,
            self._course.request_id,
            measured.cost_nanos,
            measured.tokens,
            self._books.clock.wall_ns(),
            self._books.clock.mono_ns(),
        )
        if settlement.overrun_nanos:
            LOG.warning("overrun", nanos=settlement.overrun_nanos, model=self.chat.model)
        self._books.recorder.put(self._course.record(self._books.clock, measured, settlement))

    def _release(self) -> None:
        self._is_open = False
        self._books.engine.release(
            self._course.principal.organization,
            self._course.request_id,
            self._books.clock.wall_ns(),
            self._books.clock.mono_ns(),
        )
        self._books.recorder.put(self._course.record(self._books.clock))


def _problem_of(error: BaseException) -> Problem | None:
    if isinstance(error, Problem):
        return error
    if isinstance(error, ClientGone):
        return None
    return shutting_down() if isinstance(error, asyncio.CancelledError) else internal()
