"""Holds follow streams: they grow before more is passed on, and the youngest is cut at the cap."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from comptroller.simulator.running import RunningSimulator
from controlplane.limits.models import Hold, ScopeKind
from controlplane.money import format_money, parse_money
from tests.proxy.asking import bill_at_rest, events, last_error
from tests.proxy.limited import (
    ABORT_TAIL_TOKENS,
    NOTICED_TOKENS,
    TOKEN_NANOS,
    WHOLE,
    Asking,
    ask,
    budget,
    held_nanos,
    record_of,
    rule,
    teach,
    until_asked,
)
from tests.proxy.untouched import wait_until
from tests.stack import Stack

TAUGHT = 5 * 20
LONG = {"max_tokens": 515}
# A thousand tokens once it has been taught: not enough for two, and enough for one and the part of
# the other that is charged.
CAP = "1.10"
# A stream is closed upstream before its caller hears that it was cut.
CLOSED_WITHIN_S = 0.1


def _pieces(answer: httpx.Response) -> int:
    return sum(b'"content":"' in event for event in events(answer.content)) - 1


def _two(stack: Stack, provider: RunningSimulator, secret: str, **fields: Any) -> list[Asking]:
    """Start two long answers, one after the other."""
    first = Asking(stack, secret, "output=510 pace=400", **LONG, **fields)
    until_asked(provider, 6)
    second = Asking(stack, secret, "output=510 pace=400", **LONG, **fields)
    until_asked(provider, 7)
    return [first, second]


def test_a_stream_that_outgrows_what_was_expected_is_extended_and_settles_exactly(
    limited: Stack, seller: RunningSimulator
) -> None:
    secret = limited.key()[1]
    scope = limited.scope(ScopeKind.ORGANIZATION)
    budget(limited, scope, "100.00")
    teach(limited, secret, 20)
    streaming = Asking(limited, secret, "output=300 pace=300", stream=True, **LONG)
    until_asked(seller, 6)
    assert held_nanos(limited)["organization"] < 300 * TOKEN_NANOS
    answer = streaming.answer()
    assert events(answer.content)[-1] == b"[DONE]"
    record = record_of(limited, answer)
    assert (record.decision, record.output_tokens, record.usage_source) == (
        "allowed",
        300,
        "provider",
    )
    assert record.extensions > 0
    assert record.held_nanos < record.charge_nanos == 300 * TOKEN_NANOS < record.bound_nanos
    assert record.bound_nanos == 515 * TOKEN_NANOS
    [*_, entry] = limited.ledger()
    assert entry.overrun_nanos == 0
    assert limited.ledger_nanos() == bill_at_rest(seller)["total_nanos"]


def test_the_youngest_stream_is_cut_where_there_is_no_room_and_the_other_goes_on(
    limited: Stack, seller: RunningSimulator
) -> None:
    seller.assert_max(CAP)
    secret = limited.key()[1]
    limit = budget(limited, limited.scope(ScopeKind.ORGANIZATION), CAP)
    teach(limited, secret, 20)
    first, second = _two(limited, seller, secret, stream=True)
    cut = second.answer()
    wait_until(lambda: seller.requests()[6]["is_left"])
    assert first.is_alive()
    error = last_error(cut.content)
    assert (cut.status_code, error["code"], error["type"]) == (
        200,
        "stream_cut_by_limit",
        "insufficient_quota",
    )
    record = record_of(limited, cut)
    assert (error["charged"], error["currency"]) == (format_money(record.charge_nanos), "USD")
    assert (record.decision, record.code, record.http_status) == (
        "failed",
        "stream_cut_by_limit",
        402,
    )
    assert (record.over_limit_action, record.cut_limit_id) == ("cut", limit.id)
    assert record.usage_source in {"own_count", "held"}
    # What was passed on, what had come besides, and what comes after an abort.
    assert _pieces(cut) + ABORT_TAIL_TOKENS <= record.output_tokens
    assert record.charge_nanos == record.output_tokens * TOKEN_NANOS
    whole = first.answer()
    assert events(whole.content)[-1] == b"[DONE]"
    assert record_of(limited, whole).output_tokens == 510
    bill = bill_at_rest(seller)
    assert bill["violations"] == []
    assert bill["completion_tokens"] - TAUGHT - 510 <= record.output_tokens
    assert bill["total_nanos"] <= limited.ledger_nanos() <= parse_money(CAP)
    assert limited.open_reservations() == 0


def test_a_cut_stream_is_closed_at_its_provider_before_its_caller_hears_of_it(
    limited: Stack, seller: RunningSimulator
) -> None:
    secret = limited.key()[1]
    budget(limited, limited.scope(ScopeKind.ORGANIZATION), CAP)
    teach(limited, secret, 20)
    _, second = _two(limited, seller, secret, stream=True)
    second.answer()
    generated = seller.bill()["completion_tokens"]
    wait_until(lambda: seller.requests()[6]["is_left"])
    # At 400 tokens a second the other stream makes forty within the time, the cut one two.
    most = CLOSED_WITHIN_S * 400 + NOTICED_TOKENS
    assert seller.bill()["completion_tokens"] - generated <= most


@pytest.mark.parametrize("model", ["dear", WHOLE])
def test_a_limit_that_holds_bounds_cuts_nothing(
    limited: Stack, seller: RunningSimulator, model: str
) -> None:
    secret = limited.key()[1]
    budget(limited, limited.scope(ScopeKind.ORGANIZATION), "1.00", hold=Hold.BOUND)
    asked = {"model": model, "stream": True, "max_tokens": 600}
    first = Asking(limited, secret, "output=300 pace=400", **asked)
    until_asked(seller)
    # Both bounds together are over the cap: the second waits for the first.
    second = ask(limited, secret, "output=300 pace=1000", **asked)
    assert [events(each.content)[-1] for each in (first.answer(), second)] == [b"[DONE]"] * 2
    assert second.headers["x-comptroller-over-limit"].startswith("waited=")
    assert record_of(limited, second).extensions == 0
    assert limited.ledger_nanos() == 600 * TOKEN_NANOS


def test_an_answer_in_one_piece_is_put_together_near_a_cap(
    limited: Stack, seller: RunningSimulator
) -> None:
    secret = limited.key()[1]
    budget(limited, limited.scope(ScopeKind.ORGANIZATION), "1.00")
    answer = ask(limited, secret, "output=30", max_tokens=200)
    assert _sent(seller)["stream"] is True
    assert _sent(seller)["stream_options"] == {"include_usage": True}
    found = answer.json()
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json")
    assert found["object"] == "chat.completion"
    [choice] = found["choices"]
    assert choice["finish_reason"] == "stop"
    assert choice["message"]["role"] == "assistant"
    assert found["usage"]["completion_tokens"] == 30
    assert answer.headers["x-comptroller-cost"] == "0.03"
    assert "x-comptroller-cut" not in answer.headers
    record = record_of(limited, answer)
    assert (record.assembled, record.streamed, record.decision) == (True, False, "allowed")
    assert record.charge_nanos == bill_at_rest(seller)["total_nanos"] == 30 * TOKEN_NANOS
    seller.reset()
    rule(limited, limited.scope(ScopeKind.ORGANIZATION), hold_wait_s=1)
    plain = ask(limited, secret, "output=30", max_tokens=20, model="cheap")
    assert "stream" not in _sent(seller)
    assert record_of(limited, plain).assembled is False


def _sent(provider: RunningSimulator) -> dict[str, Any]:
    sent: dict[str, Any] = json.loads(provider.requests()[-1]["body_start"])
    return sent


def test_far_from_every_cap_an_answer_in_one_piece_is_asked_for_as_one(
    limited: Stack, seller: RunningSimulator
) -> None:
    secret = limited.key()[1]
    # A tenth of what is free is the border.
    budget(limited, limited.scope(ScopeKind.ORGANIZATION), "2.00")
    answer = ask(limited, secret, "output=30", max_tokens=200)
    assert "stream" not in _sent(seller)
    assert record_of(limited, answer).assembled is False


def test_an_answer_in_one_piece_that_is_cut_is_given_as_far_as_it_came(
    limited: Stack, seller: RunningSimulator
) -> None:
    secret = limited.key()[1]
    limit = budget(limited, limited.scope(ScopeKind.ORGANIZATION), CAP)
    teach(limited, secret, 20)
    first, second = _two(limited, seller, secret)
    cut = second.answer()
    assert (cut.status_code, cut.headers["x-comptroller-cut"]) == (200, "tenant_budget_exceeded")
    found = cut.json()
    [choice] = found["choices"]
    assert choice["finish_reason"] == "length"
    assert choice["message"]["content"]
    record = record_of(limited, cut)
    assert cut.headers["x-comptroller-cost"] == format_money(record.charge_nanos)
    assert found["usage"]["completion_tokens"] == record.output_tokens
    assert (record.decision, record.http_status, record.assembled) == ("allowed", 200, True)
    assert (record.over_limit_action, record.cut_limit_id) == ("cut", limit.id)
    assert first.answer().json()["choices"][0]["finish_reason"] == "stop"
    assert "x-comptroller-cut" not in first.answer().headers
    assert bill_at_rest(seller)["total_nanos"] <= limited.ledger_nanos() <= parse_money(CAP)


def test_where_the_policy_wants_an_error_a_cut_answer_is_one(
    limited: Stack, seller: RunningSimulator
) -> None:
    secret = limited.key()[1]
    scope = limited.scope(ScopeKind.ORGANIZATION)
    budget(limited, scope, CAP)
    rule(limited, scope, on_cut="error")
    teach(limited, secret, 20)
    first, second = _two(limited, seller, secret)
    cut = second.answer()
    error = cut.json()["error"]
    assert (cut.status_code, error["code"]) == (402, "stream_cut_by_limit")
    assert cut.headers["x-should-retry"] == "false"
    record = record_of(limited, cut)
    assert (error["charged"], error["currency"]) == (format_money(record.charge_nanos), "USD")
    assert record.charge_nanos > 0
    assert first.answer().status_code == 200
