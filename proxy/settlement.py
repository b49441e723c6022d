"""The guard of a reservation: whatever ends a request, its reservation ends once.

It is a synchronous context manager on purpose. Cancellation can only strike at an `await`, and
between the end of a request and its settlement there is none.
"""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Final, Self

import msgspec
import structlog

from controlplane.clock import Clock
from controlplane.ledger.recorder import Recorder
from controlplane.ledger.records import LedgerEntry
from controlplane.money import format_money
from core_rs import (
    Admission,
    ChatAnswer,
    EngineError,
    PriceSheet,
    Refusal,
    ReportedUsage,
    Settlement,
    StreamMeter,
    Usage,
)
from proxy.calibrations import Calibrations
from proxy.client import ClientGone
from proxy.course import NOTHING, Course, Measured
from proxy.enforcement import Enforcer
from proxy.errors import Problem, internal, shutting_down
from proxy.question import Question

LOG: Final = structlog.get_logger("comptroller.proxy")
# Metered limits see a running stream at this interval; counting its new text costs microseconds.
PROGRESS_INTERVAL_NS: Final = 250_000_000
NANOS_PER_S: Final = 1_000_000_000
# A usage above this many times of what a request can hold and its model can take in is not true.
# Twice, because providers add prompts of their own, and catalogues may lag behind a model.
USAGE_BELIEVED_RATIO: Final = 2
# What a model takes in where no catalogue says: most take less.
CONTEXT_WINDOW_UNKNOWN: Final = 2**18


class Books:
    """What a reservation needs to be ended: the engine, the records, the clock."""

    def __init__(
        self,
        enforcer: Enforcer,
        recorder: Recorder,
        clock: Clock,
        calibrations: Calibrations,
    ) -> None:
        self.enforcer = enforcer
        self.engine = enforcer.engine
        self.recorder = recorder
        self.clock = clock
        self.calibrations = calibrations


class Reservation:
    """Money held for one request, until the block that uses it is left."""

    def __init__(
        self,
        books: Books,
        course: Course,
        admission: Admission,
        sheet: PriceSheet,
        question: Question,
    ) -> None:
        self._books = books
        self._course = course
        self._admission = admission
        self._sheet = sheet
        self._question = question
        self._price = question.price
        self.chat = question.chat
        self.deployment = question.deployment
        self.ruling = question.ruling
        self.injected_cap = question.injected_cap
        self.streams_upstream = question.chat.streams or admission.extendable
        self.allowed_tokens = admission.output_tokens_allowed
        self.settlement: Settlement | None = None
        self._is_open = True
        self._sent_at_ns: int | None = None
        self._was_refused_upstream = False
        self._meter: StreamMeter | None = None
        self._progress_at_ns = course.mono_ns
        # The price is that of the decision's instant. The record tells the instant whose periods
        # count the request, so that the ledger's sums are those of the engine.
        self._priced_at_ns = course.wall_ns
        course.wall_ns = admission.admitted_wall_ns
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
        if self._sent_at_ns is not None:
            self._settle(self._measured_at_exit(), is_whole=False)
            self._tell_charge()
        else:
            self._release()

    def upstream_body(self) -> bytes:
        """Give the body to forward."""
        cap = self.injected_cap
        return self.chat.upstream_body(
            self.deployment.upstream_model,
            streams=self.streams_upstream,
            output_cap=None if cap is None else (self.deployment.output_cap_field, cap),
        )

    def sending(self) -> None:
        """Note that the first byte is about to go upstream: from here on it may cost money."""
        self._sent_at_ns = self._books.clock.mono_ns()

    def refused_upstream(self) -> None:
        """Note that the provider answered with an error, for which it bills nothing."""
        self._was_refused_upstream = True

    def streaming(self, meter: StreamMeter) -> None:
        """Note what counts the stream from here on."""
        self._meter = meter

    def cut_by(self, refusal: Refusal) -> None:
        """Note the limit that cut the stream."""
        self._course.cut_limit_id = refusal.limit_id

    @property
    def output_tokens_max(self) -> int:
        """The bound of the answer, of all choices together."""
        return self._question.output_tokens_max

    def generated_most(self) -> int:
        """Bound what has been generated by what is cheap to know: a token has at least a byte."""
        meter = self._meter
        return 0 if meter is None else meter.generated_bytes + self._hidden_tokens()

    def generated(self) -> int:
        """Count what has been generated, and what is not shown by its calibrated pace."""
        meter = self._meter
        return 0 if meter is None else meter.generated_tokens() + self._hidden_tokens()

    def _hidden_tokens(self) -> int:
        rate = self.deployment.reasoning_tokens_per_s
        if self.deployment.all_tokens_visible or rate is None or self._sent_at_ns is None:
            return 0
        return rate * (self._books.clock.mono_ns() - self._sent_at_ns) // NANOS_PER_S

    def extend(self, output_tokens: int) -> bool:
        """Hold enough for so many output tokens; False if there is no room for them yet."""
        course = self._course
        allowed = self._books.enforcer.extend(
            course.principal.organization, course.request_id, output_tokens
        )
        if allowed is None:
            return False
        self.granted(allowed)
        return True

    def granted(self, output_tokens: int) -> None:
        """Note that more is held."""
        self._course.extensions += 1
        self.allowed_tokens = output_tokens

    def progress(self) -> None:
        """Report a stream's cost so far, now and then."""
        now_ns = self._books.clock.mono_ns()
        if now_ns - self._progress_at_ns < PROGRESS_INTERVAL_NS or self._meter is None:
            return
        self._progress_at_ns = now_ns
        so_far = self._priced(self.generated())
        self._books.enforcer.progress(
            self._course.principal.organization,
            self._course.request_id,
            so_far.cost_nanos,
            so_far.tokens,
        )

    def finish_answer(self, answer: ChatAnswer) -> Measured:
        """Settle an answer in one piece by its usage, else by our own count."""
        return self._settle(
            self._reported(answer.usage)
            or self._estimated(answer.generated_tokens or answer.generated_bytes),
            is_whole=answer.usage is not None,
        )

    def finish_stream(self, meter: StreamMeter) -> Measured:
        """Settle a stream that came to its end by its usage, else by our own count."""
        return self._settle(
            self._reported(meter.usage) or self._estimated(meter.generated_tokens()),
            is_whole=meter.usage is not None,
        )

    def finish_cut(self) -> Measured:
        """Settle a stream that was cut and whose answer is given as far as it came."""
        return self._settle(self._measured_at_exit(), is_whole=False)

    def _tell_charge(self) -> None:
        """Say in the error of a stream that was cut what was charged for it."""
        problem, settlement = self._course.problem, self.settlement
        if problem is not None and settlement is not None and problem.tells_charge:
            problem.charged = format_money(settlement.spend_nanos)
            problem.currency = self._course.currency

    def _measured_at_exit(self) -> Measured:
        """Measure, whatever happens; what cannot be measured costs what was held for it."""
        try:
            return self._best_knowledge()
        except Exception:  # the edge: no fault of ours may leave a reservation open
            LOG.exception("usage_not_measured", model=self.chat.model)
            return self._held()

    def _best_knowledge(self) -> Measured:
        """Measure a request that did not end as it should: never below what is billed."""
        if self._was_refused_upstream:
            return NOTHING
        meter = self._meter
        if meter is None:
            return self._held()
        reported = self._reported(meter.usage)
        is_complete = meter.is_done or len(meter.finish_reasons) >= self.chat.choices
        if reported is not None and is_complete:
            return reported
        counted = self._counted(meter, is_complete=is_complete)
        # Some providers report while they generate: such a usage lacks what came after it.
        if reported is not None and reported.cost_nanos >= counted.cost_nanos:
            return reported
        return counted

    def _counted(self, meter: StreamMeter, *, is_complete: bool) -> Measured:
        """Count a stream; one we cannot have seen all of costs what was held, or what came."""
        seen_tokens = meter.generated_tokens()
        if is_complete:
            return self._estimated(seen_tokens)
        held = self._held()
        counted = self._estimated(seen_tokens + self.deployment.abort_tail_tokens)
        # Only a provider that stops when we close bills no more than the tail; and what stood in
        # a frame that could not be read was not counted.
        is_seen = self.deployment.on_disconnect == "cancel" and meter.failure is None
        if is_seen and counted.cost_nanos <= held.cost_nanos:
            return counted
        came = self._estimated(seen_tokens)
        return counted if came.cost_nanos > held.cost_nanos else held

    def _estimated(self, output_tokens: int) -> Measured:
        """Take our own count, or what is held where the model bills more than it shows."""
        return self._priced(output_tokens) if self.deployment.all_tokens_visible else self._held()

    def _reported(self, usage: ReportedUsage | None) -> Measured | None:
        if usage is None:
            return None
        if usage.input_tokens + usage.output_tokens > self._tokens_believed_max():
            LOG.warning("usage_not_believed", model=self.chat.model)
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
                self._priced_at_ns,
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

    def _tokens_believed_max(self) -> int:
        window = self._sheet.context_window(self._price) or CONTEXT_WINDOW_UNKNOWN
        return USAGE_BELIEVED_RATIO * max(self._admission.bound_tokens, window)

    def _priced(self, output_tokens: int) -> Measured:
        input_tokens = self._input_tokens()
        cost_nanos = self._sheet.cost(
            self._price,
            Usage(input_tokens=input_tokens, output_tokens=output_tokens),
            self._priced_at_ns,
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
        """Take all that is held: the bound, or as far as a stream may go with its step."""
        bound = Measured(self._admission.bound_cost_nanos, self._admission.bound_tokens, 0, "held")
        if not self._admission.extendable:
            return bound
        question, step = self._question, self._question.step_tokens
        output_tokens = min(self.allowed_tokens + step, question.output_tokens_max)
        input_tokens = self._admission.bound_tokens - question.output_tokens_max
        cost_nanos = self._admission.calibration * self._sheet.bound(
            self._price, input_tokens, output_tokens, 1, self._priced_at_ns
        )
        if cost_nanos >= bound.cost_nanos:
            return bound
        return Measured(cost_nanos, input_tokens, output_tokens, "held")

    def _settle(self, measured: Measured, *, is_whole: bool) -> Measured:
        """Book and record; the record follows at once, so that the ledger sees them in order.

        `is_whole`: the provider said itself what a whole answer used, which can be learned from.
        Returns what was booked.
        """
        self._is_open = False
        settlement = self._book(measured, is_whole=is_whole)
        if settlement is None:
            measured = self._held()
            settlement = self._book(measured, is_whole=False)
        self.settlement = settlement
        record = self._course.record(self._books.clock, measured, settlement)
        if settlement is None:
            # The engine has lost the reservation; the money was spent all the same.
            entry = LedgerEntry(settled_at_ns=record.finished_at_ns)
            record = msgspec.structs.replace(record, entry=entry)
        elif settlement.overrun_nanos:
            LOG.warning("overrun", nanos=settlement.overrun_nanos, model=self.chat.model)
            raised = self._calibrate(measured, settlement)
            record = msgspec.structs.replace(record, calibration_raised=raised)
        self._books.recorder.put(record)
        return measured

    def _calibrate(self, measured: Measured, settlement: Settlement) -> int | None:
        """Hold more for the model from now on, where its provider itself bills beyond bounds."""
        if measured.source != "provider":
            return None
        return self._books.calibrations.raise_to(self.deployment, settlement.bound_ratio)

    def _book(self, measured: Measured, *, is_whole: bool) -> Settlement | None:
        """Book on every limit; None when the engine refuses the amount, which changes nothing."""
        learned = measured.output_tokens if is_whole and measured.source == "provider" else None
        try:
            return self._books.enforcer.settle(
                self._course.principal.organization,
                self._course.request_id,
                measured.cost_nanos,
                measured.tokens,
                learned,
            )
        except EngineError as error:
            LOG.error(  # noqa: TRY400 - the code says it all
                "settlement_refused",
                code=error.code,
                request_id=self._course.header_id.decode(),
                cost_nanos=measured.cost_nanos,
            )
            return None

    def _release(self) -> None:
        self._is_open = False
        try:
            self._books.enforcer.release(
                self._course.principal.organization, self._course.request_id
            )
        except EngineError:
            LOG.exception("release_refused", request_id=self._course.header_id.decode())
        self._books.recorder.put(self._course.record(self._books.clock))


def _problem_of(error: BaseException) -> Problem | None:
    if isinstance(error, Problem):
        return error
    if isinstance(error, ClientGone):
        return None
    return shutting_down() if isinstance(error, asyncio.CancelledError) else internal()
