"""From what a provider does wrong to what the caller is told, and what is known of its cost."""

from __future__ import annotations

import asyncio
from typing import Final

import msgspec

from core_rs import ChatAnswer, Refusal, StreamMeter
from proxy.course import Course
from proxy.errors import RETRY_AFTER_SDK_MAX_S, Problem
from proxy.settlement import Reservation
from proxy.upstream import UpstreamAnswer, UpstreamError
from proxy.wire.openai_chat import ChatRequest

PROBLEM_BYTES_MAX: Final = 64 * 1024
# An error's text is worth a moment, not the patience that an answer gets.
PROBLEM_TIMEOUT_S: Final = 5.0
# What a provider says of the operator's account: no business of the caller, who has another.
_ACCOUNT_REFUSED: Final = frozenset({401, 402, 403, 407})
_RATE_LIMITED: Final = 429
_FAILURES: Final = {
    "upstream_unreachable": "The provider cannot be reached.",
    "upstream_connect_timeout": "The provider cannot be reached: no connection came about in time.",
    "upstream_timeout": "The provider fell silent.",
    "upstream_bad_response": "The provider's answer is not usable: it is not proper HTTP.",
    "upstream_response_too_large": "The provider's answer is larger than is accepted.",
    "overloaded": "Too many requests wait for this provider.",
}


async def check_status(answer: UpstreamAnswer, reservation: Reservation) -> None:
    """Let a good answer through; turn any other into what the caller may know of it."""
    if answer.status >= 300:  # noqa: PLR2004 - below it an answer was made, and may be billed
        reservation.refused_upstream()
        raise await _refusal(answer)
    if answer.status != 200:  # noqa: PLR2004 - the one status of a good answer
        raise bad_response(f"it has status {answer.status}")
    if _is_compressed(answer):
        raise bad_response("it is compressed although that was not asked for")


async def _refusal(answer: UpstreamAnswer) -> Problem:
    """Say what became of a request that the provider did not serve."""
    status = answer.status
    if status < 400:  # noqa: PLR2004 - the boundary of errors
        return bad_response(f"it has status {status}, and redirects are not followed")
    if status in _ACCOUNT_REFUSED:
        return Problem(
            502,
            "upstream_auth_failed",
            "The provider did not accept Comptroller's credential. Tell the operator.",
        )
    if status >= 500:  # noqa: PLR2004 - the boundary of server errors
        return Problem(502, "upstream_error", f"The provider failed with status {status}.")
    return _provider_refusal(status, await _error_document(answer), _retry_after(answer))


async def _error_document(answer: UpstreamAnswer) -> bytes:
    """Read a provider's error if it is JSON that we can hand on; empty if it is not."""
    if _is_compressed(answer):
        return b""
    try:
        async with asyncio.timeout(PROBLEM_TIMEOUT_S):
            body = await answer.read(PROBLEM_BYTES_MAX)
        msgspec.json.decode(body, type=dict)
    except (TimeoutError, UpstreamError, msgspec.MsgspecError, UnicodeDecodeError):
        return b""
    return body


def _is_compressed(answer: UpstreamAnswer) -> bool:
    return any(
        name == b"content-encoding" and value.lower() != b"identity"
        for name, value in answer.headers
    )


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


def error_as_answer(course: Course, reservation: Reservation, answer: ChatAnswer) -> Problem:
    """Settle an error that came with status 200: billed only where something was generated."""
    course.problem = Problem(502, "upstream_error", "The provider answered with an error.")
    if answer.usage is None and not answer.generated_bytes:
        reservation.refused_upstream()
    else:
        reservation.finish_answer(answer)
    return course.problem


def fault_of_stream(meter: StreamMeter, chat: ChatRequest) -> Problem | None:
    """Say what was wrong with a stream that came to its end."""
    if meter.upstream_error is not None:
        return Problem(502, "upstream_error", "The provider ended the stream with an error.")
    if meter.is_done or len(meter.finish_reasons) >= chat.choices:
        return None
    return bad_response("the stream ended before the answer did")


def check_media_type(answer: UpstreamAnswer, media_type: bytes) -> None:
    """Let only an answer of the kind that was asked for through."""
    for name, value in answer.headers:
        if name == b"content-type" and value.lower().startswith(media_type):
            return
    raise bad_response(f"it is not {media_type.decode()}, which was asked for")


def _retry_after(answer: UpstreamAnswer) -> int | None:
    for name, value in answer.headers:
        if name == b"retry-after" and value.isdigit() and len(value) < 7:  # noqa: PLR2004
            return int(value)
    return None


def failure_problem(error: UpstreamError) -> Problem:
    """Say that the provider could not be reached or fell silent.

    Only where no byte of the request left may it be repeated without the risk of paying twice.
    What happened in detail names addresses of the operator's network, so it is logged, not told.
    """
    return Problem(
        error.status,
        error.code,
        _FAILURES.get(error.code, "The connection to the provider broke off."),
        should_retry=not error.sent,
        retry_after_s=None if error.sent else 1,
    )


def bad_response(detail: str, code: str = "upstream_bad_response") -> Problem:
    """Make the problem of an answer that cannot be handed on; it may have been billed."""
    return Problem(502, code, f"The provider's answer is not usable: {detail}.")


def outgrown() -> Problem:
    """Make the problem of a stream that became longer than what was reserved for it."""
    return Problem(
        402,
        "stream_cut_by_limit",
        "The stream was cut because it reached its bound; what was generated until then is "
        "charged.",
        tells_charge=True,
    )


def cut(refusal: Refusal) -> Problem:
    """Make the problem of a stream that a limit left no room to go on."""
    return Problem(
        402,
        "stream_cut_by_limit",
        f"The stream was cut because the {refusal.scope_kind} {refusal.kind} limit on "
        f"{refusal.resource} ({refusal.window}) has no room for more; what was generated until "
        "then is charged.",
        tells_charge=True,
    )


def cut_by_shutdown() -> Problem:
    """Say that a request was cut; it may have reached the provider, so it is not for repeating."""
    return Problem(
        503,
        "server_shutting_down",
        "This server shut down before the answer was complete; what was generated is charged.",
        retry_after_s=1,
    )
