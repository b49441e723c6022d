"""Forwarding an admitted request and handing its answer back, in one piece or as a stream."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing, suppress
from typing import Final

import structlog

from controlplane.clock import Clock
from controlplane.money import format_money
from core_rs import AnswerAssembler, Refusal, StreamMeter, WireError, parse_chat_answer
from proxy.client import WATCH_AFTER_S, Client, ClientGone
from proxy.course import Course
from proxy.enforcement import Enforcer
from proxy.errors import Header, Problem, shutting_down
from proxy.growth import Growth
from proxy.provider_faults import (
    bad_response,
    check_media_type,
    check_status,
    cut,
    cut_by_shutdown,
    error_as_answer,
    failure_problem,
    fault_of_stream,
)
from proxy.routing import Deployment
from proxy.running import RunningExchanges
from proxy.serving import policy_header
from proxy.settings import ProxySettings
from proxy.settlement import Reservation
from proxy.upstream import UpstreamAnswer, UpstreamError

LOG: Final = structlog.get_logger("comptroller.proxy")
PATH: Final = b"/chat/completions"
# After `[DONE]` only the end of the body is missing; waiting for it saves a connection.
END_TIMEOUT_S: Final = 1.0
# Longest time in which a stream that is going to be closed is read on, so that all is counted
# that had been generated when its caller left.
CATCH_UP_S: Final = 1.0
# What waits in the socket is here after one turn of the event loop, seldom two.
TURNS_MAX: Final = 3
# A provider that had to wait for us sends what it kept back within a round trip.
HELD_UP_S: Final = 0.25


class Relay:
    """Passes admitted requests on and settles what their answers cost."""

    def __init__(
        self, settings: ProxySettings, clock: Clock, running: RunningExchanges, enforcer: Enforcer
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._running = running
        self._enforcer = enforcer

    async def forward(self, client: Client, course: Course, reservation: Reservation) -> None:
        """Call the provider and relay what it answers.

        Raises `Problem` when there is no answer to give, `ClientGone` when nobody waits for it.
        """
        running = self._running
        task = running.enter()
        if task is None:
            raise shutting_down()
        growth = Growth(reservation, task)
        if reservation.streams_upstream:
            self._enforcer.follow(course.request_id, growth)
        try:
            exchange = Exchange(self._settings, self._clock, client, course, reservation, growth)
            await exchange.run()
        except asyncio.CancelledError:
            if not running.is_closing:
                raise
            task.uncancel()
            raise cut_by_shutdown() from None
        except TimeoutError:
            raise ClientGone from None
        except UpstreamError as error:
            _log(course, reservation.deployment, error.code, error.detail)
            raise failure_problem(error) from error
        except Problem as problem:
            if problem.code.startswith("upstream_"):
                _log(course, reservation.deployment, problem.code, problem.message)
            raise
        except WireError as error:
            _log(course, reservation.deployment, error.code, error.message)
            raise bad_response(error.message, error.code) from error
        finally:
            growth.stop()
            course.client_left |= client.is_gone
            running.leave(task)


class Exchange:
    """One request to a provider and its answer."""

    __slots__ = (
        "_answer",
        "_client",
        "_clock",
        "_course",
        "_deployment",
        "_growth",
        "_reservation",
        "_settings",
    )

    def __init__(
        self,
        settings: ProxySettings,
        clock: Clock,
        client: Client,
        course: Course,
        reservation: Reservation,
        growth: Growth,
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._client = client
        self._course = course
        self._reservation = reservation
        self._growth = growth
        self._deployment = reservation.deployment
        self._answer: UpstreamAnswer | None = None

    async def run(self) -> None:
        """Do the exchange; when the client has left, go on only as long as that is of use.

        Raises TimeoutError when it was left without a client for too long.
        """
        client = self._client
        timeouts = client.timeouts
        with timeouts.within() as presence:
            client.on_gone = lambda: presence.move(self._patience_s())
            if self._reservation.chat.streams:
                client.watch()
            watching = timeouts.call(WATCH_AFTER_S, client.watch)
            try:
                await self._send_and_relay()
            finally:
                watching.cancel()
                client.on_gone = None

    @property
    def _is_cut(self) -> bool:
        """Whether the provider stops, generating and billing, when we close the connection.

        None does that for an answer in one piece, which is generated whole.
        """
        return self._deployment.on_disconnect == "cancel" and self._reservation.streams_upstream

    def _patience_s(self) -> float:
        """Say how long to read on without a client."""
        is_behind = self._answer is not None and self._answer.was_held_up
        return CATCH_UP_S if self._is_cut and not is_behind else self._settings.drain_timeout_s

    async def _send_and_relay(self) -> None:
        deployment = self._deployment
        answer: UpstreamAnswer | None = None
        with self._growth:
            answer = await deployment.pool.send(
                b"POST",
                PATH,
                _upstream_headers(self._course, deployment),
                self._reservation.upstream_body(),
                head_timeout_s=self._settings.head_timeout_s,
                on_sent=self._reservation.sending,
            )
        if answer is None:
            assert self._growth.refusal is not None
            raise cut(self._growth.refusal)
        async with aclosing(answer):
            self._answer = answer
            self._course.upstream_status = answer.status
            self._course.first_byte_at_ns = self._clock.wall_ns()
            await check_status(answer, self._reservation)
            if self._reservation.chat.streams:
                await self._relay_stream(answer)
            elif self._reservation.streams_upstream:
                await self._relay_assembled(answer)
            else:
                await self._relay_document(answer)

    async def _relay_document(self, answer: UpstreamAnswer) -> None:
        body = await answer.read(self._settings.answer_bytes_max)
        parsed = parse_chat_answer(body, self._deployment.vocabulary)
        self._course.client_left = self._client.is_gone
        if parsed.upstream_error is not None:
            raise error_as_answer(self._course, self._reservation, parsed)
        self._reservation.finish_answer(parsed)
        await self._answer_document(answer.status, body)

    async def _answer_document(self, status: int, body: bytes, *more: Header) -> None:
        """Answer in one piece what has been settled."""
        headers = answer_headers(self._course, self._reservation)
        headers.append((b"content-type", b"application/json"))
        headers.append((b"content-length", b"%d" % len(body)))
        settlement = self._reservation.settlement
        if settlement is not None:
            cost = format_money(settlement.spend_nanos).encode()
            headers.append((b"x-comptroller-cost", cost))
        headers += more
        if not self._client.is_gone:
            await self._client.answer(status, headers, body)

    async def _relay_stream(self, answer: UpstreamAnswer) -> None:
        reservation, client = self._reservation, self._client
        meter = self._begin_to_count(answer, strip_usage=not reservation.chat.wants_usage)
        headers = answer_headers(self._course, reservation)
        headers.append((b"content-type", b"text/event-stream; charset=utf-8"))
        headers.append((b"cache-control", b"no-cache"))
        if not client.is_gone:
            await client.start(answer.status, headers)
        with self._growth:
            async for _, passed in self._chunks(answer, meter):
                await self._pass_on(passed)
        if self._growth.refusal is not None:
            await self._catch_up(answer, meter)
            raise cut(self._growth.refusal)
        await self._end_stream(meter)

    async def _relay_assembled(self, answer: UpstreamAnswer) -> None:
        """Put an answer in one piece together from a stream, which its hold follows."""
        reservation, course = self._reservation, self._course
        meter = self._begin_to_count(answer, strip_usage=False)
        assembler = AnswerAssembler(
            answer_id=f"chatcmpl-{course.request_id.hex()}",
            created_s=course.wall_ns // 1_000_000_000,
            model=self._deployment.upstream_model,
            choices=reservation.chat.choices,
            bytes_max=self._settings.answer_bytes_max,
        )
        with self._growth:
            async for chunk, _ in self._chunks(answer, meter):
                assembler.feed(chunk)
        if self._growth.refusal is not None:
            await self._catch_up(answer, meter)
            await self._answer_cut(assembler, self._growth.refusal)
            return
        meter.finish()
        course.client_left |= self._client.is_gone
        if problem := fault_of_stream(meter, reservation.chat):
            course.problem = problem
        reservation.finish_stream(meter)
        if course.problem is not None:
            raise course.problem
        await self._answer_document(answer.status, assembler.finish())

    async def _answer_cut(self, assembler: AnswerAssembler, refusal: Refusal) -> None:
        """Answer what was generated until a limit cut it, unless a rule wants an error instead."""
        if self._reservation.ruling.on_cut == "error":
            raise cut(refusal)
        measured = self._reservation.finish_cut()
        body = assembler.finish_cut(
            input_tokens=measured.input_tokens, output_tokens=measured.output_tokens
        )
        await self._answer_document(200, body, (b"x-comptroller-cut", refusal.code.encode()))

    def _begin_to_count(self, answer: UpstreamAnswer, *, strip_usage: bool) -> StreamMeter:
        # Only a stream can be counted: of an answer of another kind nothing is known.
        check_media_type(answer, b"text/event-stream")
        meter = StreamMeter(strip_usage=strip_usage, vocabulary=self._deployment.vocabulary)
        self._reservation.streaming(meter)
        self._growth.begin()
        return meter

    async def _chunks(
        self, answer: UpstreamAnswer, meter: StreamMeter
    ) -> AsyncIterator[tuple[bytes, bytes]]:
        """Read the stream, each part once all that it holds is held for; what to pass on beside."""
        hurries, growth = self._is_cut, self._growth
        # A cut can also come between the head of the answer and its first part.
        while growth.refusal is None:
            chunk = await _next_chunk(answer, meter, hurries=hurries and self._client.is_gone)
            if not chunk:
                return
            passed = meter.feed(chunk)
            await self._hold_for(answer, meter)
            yield chunk, passed
            if meter.failure is not None:
                # Raises why: the meter says it to whoever asks for the rest.
                meter.finish()
            self._reservation.progress()

    async def _hold_for(self, answer: UpstreamAnswer, meter: StreamMeter) -> None:
        """Hold enough for all that has come.

        Raises `Problem` when the stream has reached its bound and all that is billed is counted.
        """
        try:
            await self._growth.follow()
        except Problem:
            await self._catch_up(answer, meter)
            raise

    async def _catch_up(self, answer: UpstreamAnswer, meter: StreamMeter) -> None:
        """Count what is billed of a stream that is cut, and that its caller does not get.

        That is what has been sent already; or all that comes, of a provider that does not stop.
        """
        with suppress(UpstreamError, TimeoutError):
            async with asyncio.timeout(self._settings.drain_timeout_s):
                while not meter.is_done and meter.failure is None:
                    if self._is_cut and not await _has_more(answer):
                        return
                    chunk = await answer.next_chunk()
                    if not chunk:
                        return
                    meter.feed(chunk)

    async def _end_stream(self, meter: StreamMeter) -> None:
        client, course = self._client, self._course
        last = meter.finish()
        course.client_left |= client.is_gone
        course.problem = fault_of_stream(meter, self._reservation.chat)
        self._reservation.finish_stream(meter)
        if course.problem is None or meter.upstream_error is not None:
            # The provider's own error event has been passed on, and is the last word.
            await client.end(last)
            return
        await self._pass_on(last)
        raise course.problem

    async def _pass_on(self, chunk: bytes) -> None:
        """Give the client its part; when it has left, the stream is still read for its usage."""
        if not chunk or self._client.is_gone:
            return
        try:
            await self._client.send(chunk)
        except ClientGone:
            self._course.client_left = True


async def _next_chunk(answer: UpstreamAnswer, meter: StreamMeter, *, hurries: bool) -> bytes:
    """Read on until the end, or until `[DONE]`: what comes or fails after that is of no use.

    Raises `ClientGone` when it `hurries` and nothing is there any more.
    """
    if not meter.is_done:
        if hurries and not await _has_more(answer):
            raise ClientGone
        return await answer.next_chunk()
    with suppress(TimeoutError, UpstreamError):
        async with asyncio.timeout(END_TIMEOUT_S):
            while await answer.next_chunk():
                pass
    return b""


async def _has_more(answer: UpstreamAnswer) -> bool:
    """Say whether something that was sent already can be read."""
    if answer.was_held_up:
        with suppress(TimeoutError):
            async with asyncio.timeout(HELD_UP_S):
                return await answer.arrival()
        return False
    for _ in range(TURNS_MAX):
        if answer.has_arrived:
            return True
        await asyncio.sleep(0)
    return answer.has_arrived


def answer_headers(course: Course, reservation: Reservation) -> list[Header]:
    """List what Comptroller says about an admitted request in the head of its answer."""
    admission = course.admission
    assert admission is not None
    headers = [
        (b"x-request-id", course.header_id),
        policy_header(admission.policy_version),
        (b"x-comptroller-served-model", reservation.deployment.upstream_model.encode()),
    ]
    if reservation.injected_cap is not None:
        headers.append((b"x-comptroller-output-cap", b"%d" % reservation.injected_cap))
    if course.steps or course.waited_ns:
        headers.append((b"x-comptroller-over-limit", over_limit_header(course)))
    if admission.remaining_spend_nanos is not None:
        remaining = format_money(admission.remaining_spend_nanos).encode()
        headers.append((b"x-comptroller-limit-remaining", remaining))
    headers += _rate_headers(
        b"requests",
        admission.requests_limit,
        admission.requests_remaining,
        admission.requests_reset_ns,
    )
    headers += _rate_headers(
        b"tokens", admission.tokens_limit, admission.tokens_remaining, admission.tokens_reset_ns
    )
    return headers


def over_limit_header(course: Course) -> bytes:
    """Say what limits did to a request that passed: never is one downgraded in silence."""
    parts = [f"{step.action}={step.model}" if step.model else step.action for step in course.steps]
    if course.waited_ns:
        parts.append(f"waited={course.waited_ns // 1_000_000}ms")
    return ",".join(parts).encode("ascii", "backslashreplace")


def _rate_headers(
    name: bytes, limit: int | None, remaining: int | None, reset_ns: int | None
) -> Sequence[Header]:
    if limit is None:
        return ()
    return (
        (b"x-ratelimit-limit-" + name, b"%d" % limit),
        (b"x-ratelimit-remaining-" + name, b"%d" % (remaining or 0)),
        (b"x-ratelimit-reset-" + name, b"%dms" % -(-(reset_ns or 0) // 1_000_000)),
    )


def _upstream_headers(course: Course, deployment: Deployment) -> list[Header]:
    """List the only headers a provider gets: none of the caller's own reach it."""
    headers = [
        (b"content-type", b"application/json"),
        (b"accept-encoding", b"identity"),
        (b"user-agent", b"comptroller"),
        (b"x-client-request-id", course.header_id),
    ]
    if deployment.authorization is not None:
        headers.append((b"authorization", deployment.authorization))
    return headers


def _log(course: Course, deployment: Deployment, code: str, detail: str) -> None:
    LOG.warning(
        "upstream_failed",
        code=code,
        detail=detail,
        provider=deployment.provider,
        model=deployment.upstream_model,
        request_id=course.header_id.decode(),
    )
