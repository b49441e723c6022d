"""From the engine's refusal to what the caller is told: the whole truth it may see."""

from __future__ import annotations

from typing import Any

from controlplane.clock import instant
from controlplane.money import format_money
from core_rs import Refusal
from proxy.errors import (
    RETRY_AFTER_SDK_MAX_S,
    Header,
    Problem,
    invalid_api_key,
    key_disabled,
    organization_suspended,
)

NANOS_PER_S = 1_000_000_000

_STATES = {
    "invalid_api_key": invalid_api_key,
    "key_disabled": key_disabled,
    "organization_suspended": organization_suspended,
}
_WAITS = {
    "open_requests": "It may pass when requests that are still running have finished.",
    "never": "It can never pass under this limit.",
}


def refusal_problem(refusal: Refusal, currency: str, output_tokens_that_fit: int | None) -> Problem:
    """Say which limit refused, how much of it is used, held and asked, and when it frees."""
    state = _STATES.get(refusal.code) if refusal.limit_id is None else None
    if state is not None:
        return state()
    retry_after_s = _retry_after_s(refusal)
    limit = _limit(refusal, currency, retry_after_s)
    if output_tokens_that_fit is not None:
        limit["output_tokens_that_fit"] = output_tokens_that_fit
    is_rate = refusal.status == 429  # noqa: PLR2004 - the status of rate limits
    return Problem(
        refusal.status,
        refusal.code,
        _message(refusal, retry_after_s),
        limit=limit,
        # A 402 is no matter of seconds, so it carries its instant in the body alone.
        retry_after_s=retry_after_s if refusal.status in {429, 503} else None,
        should_retry=is_rate
        and retry_after_s is not None
        and retry_after_s <= RETRY_AFTER_SDK_MAX_S,
        headers=_rate_headers(refusal, retry_after_s) if is_rate else (),
    )


def _retry_after_s(refusal: Refusal) -> int | None:
    """Round up: at the second we name, the request can really pass."""
    if refusal.retry_after_ns is None:
        return None
    return max(1, -(-refusal.retry_after_ns // NANOS_PER_S))


def _limit(refusal: Refusal, currency: str, retry_after_s: int | None) -> dict[str, Any]:
    is_money = refusal.resource == "spend"
    frees_at_ns = refusal.frees_at_wall_ns
    limit: dict[str, Any] = {
        "scope": refusal.scope_kind,
        "scope_id": refusal.scope_id,
        "resource": refusal.resource,
        "window": refusal.window,
        "requested": amount(refusal.requested or 0, is_money=is_money),
        "resets_at": instant(frees_at_ns).isoformat() if frees_at_ns is not None else None,
        "waits_for": refusal.waits_for,
        "retry_after_s": retry_after_s,
    }
    if is_money:
        limit["currency"] = currency
    if refusal.scope_kind in visible_scopes(refusal.member_id):
        limit["cap"] = amount(refusal.cap or 0, is_money=is_money)
        limit["used"] = amount(refusal.used or 0, is_money=is_money)
        limit["held"] = amount(refusal.held or 0, is_money=is_money)
    return limit


def visible_scopes(member_id: str | None) -> frozenset[str]:
    """Name the scopes whose figures the key's owner may see: a member's own, or its team's."""
    if member_id is None:
        return frozenset({"key", "team"})
    return frozenset({"key", "member"})


def amount(value: int, *, is_money: bool) -> str | int:
    """Write money as a decimal string, and leave counts as they are."""
    return format_money(value) if is_money else value


def _message(refusal: Refusal, retry_after_s: int | None) -> str:
    whose = f"{refusal.scope_kind} {refusal.kind}"
    when = _WAITS.get(refusal.waits_for or "", "")
    if retry_after_s is not None and not when:
        when = f"It can pass in {retry_after_s} s."
    return (
        f"The {whose} limit on {refusal.resource} ({refusal.window}) has no room for this "
        f"request. {when}"
    ).strip()


def _rate_headers(refusal: Refusal, retry_after_s: int | None) -> tuple[Header, ...]:
    if refusal.scope_kind != "key" or refusal.cap is None:
        return ()
    name = b"tokens" if refusal.resource == "tokens" else b"requests"
    remaining = max(0, refusal.cap - (refusal.used or 0))
    return (
        (b"x-ratelimit-limit-" + name, b"%d" % refusal.cap),
        (b"x-ratelimit-remaining-" + name, b"%d" % remaining),
        (b"x-ratelimit-reset-" + name, b"%ds" % (retry_after_s or 0)),
    )
