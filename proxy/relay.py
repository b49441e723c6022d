"""Forwarding an admitted request and handing its answer back, in one piece or as a stream."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import aclosing
from typing import Final

from controlplane.clock import Clock
from controlplane.money import format_money
from core_rs import StreamMeter, WireError, parse_chat_answer
from proxy.client import WATCH_AFTER_S, Client, ClientGone
from proxy.course import Course
from proxy.errors import RETRY_AFTER_SDK_MAX_S, Header, Problem
from proxy.routing import Deployment
from proxy.settings import ProxySettings
from proxy.settlement import Reservation
from proxy.upstream import UpstreamAnswer, UpstreamError

PATH: Final = b"/chat/completions"
PROBLEM_BYTES_MAX: Final = 64 * 1024
_AUTH_FAILED: Final = frozenset({401, 403})
_RATE_LIMITED: Final = 429


class Relay:
    """Passes one admitted request on and settles what its answer cost."""

    def __init__(self, settings: ProxySettings, clock: Clock) -> None:
        self._settings = settings
        self._clock = clock

    async def forward(self, client: Client, course: Course, reservation: Reservation) -> None:
        """Call the provider and relay what it answers.

        Raises `Problem` when there is no answer to give, `ClientGone` when nobody waits for it.
        """
        loop = asyncio.get_running_loop()
        deployment = reservation.deployment
        patience_s = self._settings.drain_timeout_s if deployment.on_disconnect == "drain" else 0
        try:
            async with asyncio.timeout(None) as presence:
                client.on_gone = lambda: presence.reschedule(loop.time() + patience_s)
                if reservation.chat.streams:
                    client.watch()
                watching = loop.call_later(WATCH_AFTER_S, client.watch)
                try:
                    await self._exchange(client, course, reservation)
                finally:
                    watching.cancel()
                    client.on_gone = None
        except TimeoutError:
            raise ClientGone from None
        except UpstreamError as error:
            raise _problem(error) from error
        except WireError as error:
            raise _bad_response(error.message) from error

    async def _exchange(self, client: Client, course: Course, reservation: Reservation) -> None:
        chat, deployment = reservation.chat, reservation.deployment
        answer = await deployment.pool.send(
            b"POST",
            PATH,
            _upstream_headers(course, deployment),
            chat.upstream_body(deployment.upstream_model),
            head_timeout_s=self._settings.head_timeout_s,
            on_sent=reservation.sending,
        )
        async with aclosing(answer):
            course.upstream_status = answer.status
            course.first_byte_at_ns = self._clock.wall_ns()
            await self._check_status(answer, reservation)
            if chat.streams:
                await self._relay_stream(client, course, reservation, answer)
            else:
                await self._relay_answer(client, course, reservation, answer)

    async def _relay_answer(
        self, client: Client, course: Course, reservation: Reservation, answer: UpstreamAnswer
    ) -> None:
        body = await answer.read(self._settings.answer_bytes_max)
        parsed = parse_chat_answer(body, reservation.deployment.vocabulary)
        course.client_left = client.is_gone
        measured = reservation.finish_answer(parsed)
        headers = answer_headers(course, reservation.deployment)
        headers.append((b"content-type", b"application/json"))
        headers.append((b"content-length", b"%d" % len(body)))
        headers.append((b"x-comptroller-cost", format_money(measured.cost_nanos).encode()))
        if not client.is_gone:
            await client.answer(answer.status, headers, body)

    async def _relay_stream(
        self, client: Client, course: Course, reservation: Reservation, answer: UpstreamAnswer
    ) -> None:
        chat, deployment = reservation.chat, reservation.deployment
        meter = StreamMeter(strip_usage=not chat.wants_usage, vocabulary=deployment.vocabulary)
        reservation.streaming(meter)
        _expect(answer, b"text/event-stream")
        headers = answer_headers(course, deployment)
        headers.append((b"content-type", b"text/event-stream; charset=utf-8"))
        headers.append((b"cache-control", b"no-cache"))
        await client.start(answer.status, headers)
        while chunk := await answer.next_chunk():
            await self._pass_on(client, course, meter.feed(chunk))
            if meter.failure is not None:
                raise _bad_response(meter.failure)
            if not reservation.progress():
                raise _outgrown()
        last = meter.finish()
        course.client_left = client.is_gone
        reservation.finish_stream(meter)
        await client.end(last)

    async def _pass_on(self, client: Client, course: Course, chunk: bytes) -> None:
        """Give the client its part; when it has left, the stream is still read for its usage."""
        if not chunk or client.is_gone:
            return
        try:
            await client.send(chunk)
        except ClientGone:
            course.client_left = True

    async def _check_status(self, answer: UpstreamAnswer, reservation: Reservation) -> None:
        """Let a good answer through; turn any other into what the caller may know of it."""
        if any(
            name == b"content-encoding" and value != b"identity" for name, value in answer.headers
        ):
            raise _bad_response("the provider compressed its answer although it was asked not to")
        if answer.status == 200:  # noqa: PLR2004 - the one status of a good answer
            return
        if answer.status < 400:  # noqa: PLR2004 - the boundary of errors
            raise _bad_response(f"the provider answered with status {answer.status}")
        reservation.refused_upstream()
        if answer.status in _AUTH_FAILED:
            raise Problem(
                502,
                "upstream_auth_failed",
                "The provider did not accept Comptroller's credential. Tell the operator.",
            )
        if answer.status >= 500:  # noqa: PLR2004 - the boundary of server errors
            raise Problem(
                502, "upstream_error", f"The provider failed with status {answer.status}."
            )
        body = await answer.read(PROBLEM_BYTES_MAX)
        raise _provider_refusal(answer.status, body, _retry_after(answer))


def _provider_refusal(status: int, body: bytes, retry_after_s: int | None) -> Problem:
    """Hand on a provider's own 4xx: the caller reads it as the provider wrote it."""
    is_rate = status == _RATE_LIMITED
    return Problem(
        status,
        "upstream_rate_limited" if is_rate else "upstream_refused",
        f"The provider refused the request with status {status}.",
        retry_after_s=retry_after_s,
        should_retry=is_rate and (retry_after_s or 1) <= RETRY_AFTER_SDK_MAX_S,
        original=body,
    )


def answer_headers(course: Course, deployment: Deployment) -> list[Header]:
    """List what Comptroller says about an admitted request in the head of its answer."""
    admission = course.admission
    assert admission is not None
    headers = [
        (b"x-request-id", course.header_id),
        (b"x-comptroller-policy-version", admission.policy_version.encode()),
        (b"x-comptroller-served-model", deployment.upstream_model.encode()),
    ]
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


def _expect(answer: UpstreamAnswer, media_type: bytes) -> None:
    for name, value in answer.headers:
        if name == b"content-type" and value.lower().startswith(media_type):
            return
    raise _bad_response("the provider's answer is not of the kind that was asked for")


def _retry_after(answer: UpstreamAnswer) -> int | None:
    for name, value in answer.headers:
        if name == b"retry-after" and value.isdigit() and len(value) < 7:  # noqa: PLR2004
            return int(value)
    return None


def _problem(error: UpstreamError) -> Problem:
    """Say that the provider could not be reached or fell silent.

    Only where no byte of the request left may it be repeated without the risk of paying twice.
    """
    return Problem(
        error.status,
        error.code,
        f"The provider could not answer: {error.detail}.",
        should_retry=not error.sent,
        retry_after_s=None if error.sent else 1,
    )


def _bad_response(detail: str) -> Problem:
    return Problem(502, "upstream_bad_response", f"The provider's answer is not usable: {detail}.")


def _outgrown() -> Problem:
    return Problem(
        402,
        "stream_cut_by_limit",
        "The stream was cut because it cost as much as was reserved for it; what was generated "
        "until then is charged.",
    )
