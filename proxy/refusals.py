"""From the engine's refusal to what the caller is told: the whole truth it may see."""

from __future__ import annotations

from typing import Any, Final

from controlplane.clock import instant
from controlplane.money import format_money
from core_rs import Refusal
from proxy.attribution import Attribution
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
    "top_up": "It may pass when the balance has been topped up.",
    "never": "It can never pass under this limit.",
}
_RULES = {
    "model_not_allowed": (
        "The model {model!r} is not among those this {scope} may use.",
        "model",
    ),
    "provider_not_allowed": (
        "The provider of the model {model!r} is not among those this {scope} may use.",
        "model",
    ),
    "feature_blocked": ("The feature {feature!r} is blocked for this {scope}.", None),
    "request_class_blocked": ("Requests of this class are blocked for this {scope}.", None),
    "endpoint_blocked": ("This endpoint is blocked for this {scope}.", None),
}


def rule_problem(code: str, scope_kind: str, model: str, labels: Attribution) -> Problem:
    """Say which rule of static policy forbids a request."""
    message, param = _RULES[code]
    text = message.format(model=model, scope=scope_kind, feature=labels.feature)
    return Problem(403, code, text, param)


def refusal_problem(refusal: Refusal, currency: str, detail: str) -> Problem:
    """Say which limit refused, how much of it is used, held and asked, and when it frees.

    `detail` says of which scopes the figures are told: `own`, `all` or `none`.
    """
    state = _STATES.get(refusal.code) if refusal.limit_id is None else None
    if state is not None:
        return state()
    retry_after_s = _retry_after_s(refusal)
    is_rate = refusal.status == 429  # noqa: PLR2004 - the status of rate limits
    return Problem(
        refusal.status,
        refusal.code,
        _message(refusal, retry_after_s),
        limit=_limit(refusal, currency, retry_after_s, detail),
        # A 402 is no matter of seconds, so it carries its instant in the body alone.
        retry_after_s=retry_after_s if refusal.status in {429, 503} else None,
        should_retry=is_rate
        and retry_after_s is not None
        and retry_after_s <= RETRY_AFTER_SDK_MAX_S,
        headers=_rate_headers(refusal, retry_after_s) if is_rate else (),
    )


def _retry_after_s(refusal: Refusal) -> int | None:
    """Round up: at the second we name, the request can really pass.

    When a running request will end is not known; a second is a fair time to ask again. None where
    no time helps.
    """
    if refusal.retry_after_ns is None:
        may_end = refusal.waits_for == "open_requests"
        return 1 if may_end and refusal.status == 429 else None  # noqa: PLR2004 - as above
    return max(1, -(-refusal.retry_after_ns // NANOS_PER_S))


def _limit(
    refusal: Refusal, currency: str, retry_after_s: int | None, detail: str
) -> dict[str, Any]:
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
    seen = visible_scopes(refusal.member_id, detail)
    if refusal.scope_kind in seen:
        limit["cap"] = amount(refusal.cap or 0, is_money=is_money)
        limit["used"] = amount(refusal.used or 0, is_money=is_money)
        limit["held"] = amount(refusal.held or 0, is_money=is_money)
    # Together with prices it tells the room of the scope that allows no more.
    if refusal.output_tokens_that_fit is not None and refusal.fitting_scope_kind in seen:
        limit["output_tokens_that_fit"] = refusal.output_tokens_that_fit
    return limit


ALL_SCOPES: Final = frozenset(
    {
        "key", "session", "member_in_team", "member", "pool", "feature", "agent", "end_user",
        "team", "organization", "provider", "installation",
    }
)  # fmt: skip
_LABELS: Final = frozenset({"session", "feature", "agent", "end_user"})
_OF_SERVICE: Final = frozenset({"key", "team"}) | _LABELS
_OF_MEMBER: Final = frozenset({"key", "member", "member_in_team"})


def visible_scopes(member_id: str | None, detail: str = "own") -> frozenset[str]:
    """Name the scopes whose figures a key's owner may see.

    Its key and member; or its key and team where no member owns it, and then too what the service
    itself names: features, agents, end users and sessions are its own. Policy may show all or none.
    """
    if detail != "own":
        return ALL_SCOPES if detail == "all" else frozenset()
    return _OF_SERVICE if member_id is None else _OF_MEMBER


def amount(value: int, *, is_money: bool) -> str | int:
    """Write money as a decimal string, and leave counts as they are."""
    return format_money(value) if is_money else value


def _message(refusal: Refusal, retry_after_s: int | None) -> str:
    whose = f"{refusal.scope_kind} {refusal.kind}"
    when = _WAITS.get(refusal.waits_for or "", "")
    if refusal.retry_after_ns is not None and not when:
        when = f"It can pass in {retry_after_s} s."
    return (
        f"The {whose} limit on {refusal.resource} ({refusal.window}) has no room for this "
        f"request. {when}"
    ).strip()


def _rate_headers(refusal: Refusal, retry_after_s: int | None) -> tuple[Header, ...]:
    if refusal.scope_kind != "key" or refusal.cap is None or refusal.kind != "rate":
        return ()
    name = b"tokens" if refusal.resource == "tokens" else b"requests"
    remaining = max(0, refusal.cap - (refusal.used or 0))
    return (
        (b"x-ratelimit-limit-" + name, b"%d" % refusal.cap),
        (b"x-ratelimit-remaining-" + name, b"%d" % remaining),
        (b"x-ratelimit-reset-" + name, b"%ds" % (retry_after_s or 0)),
    )
