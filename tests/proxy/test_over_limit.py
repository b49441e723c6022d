"""What limits do instead of refusing: another model serves, somebody confirms, a request queues."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from comptroller.simulator.running import RunningSimulator
from controlplane.clock import ManualClock
from controlplane.limits.models import Hold, Mode, ScopeKind
from controlplane.limits.steps import Step, StepAction
from controlplane.money import parse_money
from tests.proxy.limited import (
    CHEAP,
    DEAR,
    TOKEN_NANOS,
    UNPRICED,
    Asking,
    actions,
    ask,
    budget,
    limited_installation,
    record_of,
    rule,
    until_waiting,
)
from tests.stack import Stack

NS_PER_S = 1_000_000_000
HALF = {"max_tokens": 500}
DOWNGRADE = Step(50, StepAction.DOWNGRADE, model=CHEAP)
CONFIRM = Step(50, StepAction.CONFIRM)


def _half_spent(stack: Stack, *steps: Step, **options: Any) -> tuple[str, Any]:
    """Spend half of a budget that has these steps."""
    options = {"hold": Hold.BOUND, **options}
    limit = budget(stack, stack.scope(ScopeKind.ORGANIZATION), "1.00", *steps, **options)
    secret = stack.key()[1]
    answer = ask(stack, secret, "output=500", **HALF)
    assert (answer.status_code, answer.headers["x-comptroller-cost"]) == (200, "0.50")
    assert "x-comptroller-over-limit" not in answer.headers
    return secret, limit


def test_another_model_serves_from_a_share_of_the_cap_on_and_that_is_told(
    limited: Stack, seller: RunningSimulator
) -> None:
    secret, limit = _half_spent(limited, DOWNGRADE)
    answer = ask(limited, secret, "output=10", max_tokens=10)
    assert answer.headers["x-comptroller-served-model"] == CHEAP
    assert answer.headers["x-comptroller-over-limit"] == "downgrade=cheap"
    assert answer.headers["x-comptroller-cost"] == "0.001"
    record = record_of(limited, answer)
    assert (record.requested_model, record.model, record.served_model) == (DEAR, CHEAP, CHEAP)
    assert (record.tier, record.over_limit_action) == ("basic", "downgrade")
    assert record.steps == [
        {"limitId": str(limit.id), "percent": 50, "action": "downgrade", "model": CHEAP}
    ]
    assert limited.ledger_nanos() == 501 * TOKEN_NANOS
    # Who asks for it anyway is served by it without a word.
    own = ask(limited, secret, "output=10", max_tokens=10, model=CHEAP)
    assert "x-comptroller-over-limit" not in own.headers


def test_another_model_serves_what_does_not_fit(limited: Stack, seller: RunningSimulator) -> None:
    at_cap = Step(100, StepAction.DOWNGRADE, model=CHEAP)
    secret, _ = _half_spent(limited, at_cap)
    assert ask(limited, secret, "output=1", max_tokens=500).headers[
        "x-comptroller-served-model"
    ] == DEAR  # fmt: skip
    answer = ask(limited, secret, "output=10", max_tokens=500)
    assert answer.headers["x-comptroller-over-limit"] == "downgrade=cheap"
    assert record_of(limited, answer).charge_nanos == TOKEN_NANOS
    refused = ask(limited, secret, "output=10", max_tokens=1000, model=DEAR, n=6)
    assert (refused.status_code, refused.json()["error"]["code"]) == (402, "tenant_budget_exceeded")
    record = record_of(limited, refused)
    assert (record.steps, record.over_limit_action) == ([], "reject")


@pytest.mark.parametrize("why", ["not allowed", "not priced", "not served", "does not fit"])
def test_a_model_that_cannot_serve_is_passed_over(
    limited: Stack, seller: RunningSimulator, why: str
) -> None:
    names = {"not priced": UNPRICED, "not served": "nobody"}
    step = Step(50, StepAction.DOWNGRADE, model=names.get(why, CHEAP))
    secret, _ = _half_spent(limited, step)
    scope = limited.scope(ScopeKind.ORGANIZATION)
    if why == "not allowed":
        rule(limited, scope, models=[DEAR])
    if why == "does not fit":
        budget(limited, scope, "0.0001", models=[CHEAP])
    answer = ask(limited, secret, "output=10", max_tokens=10)
    assert (answer.status_code, answer.headers["x-comptroller-served-model"]) == (200, DEAR)
    assert "x-comptroller-over-limit" not in answer.headers
    record = record_of(limited, answer)
    assert (record.model, record.steps, record.over_limit_action) == (DEAR, [], None)
    assert record.charge_nanos == 10 * TOKEN_NANOS


def test_a_soft_limit_that_is_passed_serves_by_another_model_and_never_refuses(
    limited: Stack, seller: RunningSimulator
) -> None:
    at_cap = Step(100, StepAction.DOWNGRADE, model=CHEAP)
    secret, _ = _half_spent(limited, at_cap, mode=Mode.SOFT)
    assert ask(limited, secret, "output=500", **HALF).headers["x-comptroller-served-model"] == DEAR
    answer = ask(limited, secret, "output=500", **HALF)
    assert (answer.status_code, answer.headers["x-comptroller-served-model"]) == (200, CHEAP)
    assert limited.ledger_nanos() == parse_money("1.05")


def _confirm(stack: Stack, secret: str, tokens: str, directive: str = "output=10") -> Any:
    more = {"x-comptroller-confirm": tokens} if tokens else {}
    return ask(stack, secret, directive, more=more, max_tokens=10)


def _token(answer: httpx.Response) -> str:
    assert answer.status_code == 403
    assert answer.headers["x-should-retry"] == "false"
    error = answer.json()["error"]
    assert (error["code"], error["limit"].keys()) == (
        "confirmation_required",
        {"scope", "scope_id", "resource", "window"},
    )
    expires_at = datetime.fromisoformat(error["expires_at"])
    assert expires_at.tzinfo is not None
    token: str = error["confirm_token"]
    return token


def test_a_confirmed_request_passes_once_with_its_own_body_and_key(
    limited: Stack, seller: RunningSimulator
) -> None:
    secret, limit = _half_spent(limited, CONFIRM)
    asked = _confirm(limited, secret, "")
    token = _token(asked)
    record = record_of(limited, asked)
    assert (record.decision, record.code, record.over_limit_action) == (
        "refused",
        "confirmation_required",
        "confirm",
    )
    _token(_confirm(limited, secret, token, "output=9"))
    _token(_confirm(limited, limited.key()[1], token))
    _token(_confirm(limited, secret, token[:-1] + ("A" if token[-1] != "A" else "B")))
    assert (limited.open_reservations(), seller.bill()["requests"]) == (0, 1)
    passed = _confirm(limited, secret, f"nonsense, {token}")
    assert passed.status_code == 200
    assert passed.headers["x-comptroller-over-limit"] == "confirm"
    record = record_of(limited, passed)
    assert record.steps == [{"limitId": str(limit.id), "percent": 50, "action": "confirm"}]
    assert record.over_limit_action == "confirm"
    assert _token(_confirm(limited, secret, token)) != token
    assert seller.bill()["requests"] == 2


def test_a_confirmation_is_over_after_ten_minutes(tmp_path: Path, seller: RunningSimulator) -> None:
    clock = ManualClock(datetime(2026, 3, 14, 9, 26, 53, tzinfo=UTC))
    with limited_installation(tmp_path, seller, clock=clock) as stack:
        # What was used before this process began is not known: its first tokens live longer.
        clock.advance_ns(600 * NS_PER_S)
        secret, _ = _half_spent(stack, CONFIRM)
        early, late = (_token(_confirm(stack, secret, "")) for _ in "ab")
        assert early == late
        clock.advance_ns(599 * NS_PER_S)
        other = _token(_confirm(stack, secret, "", "output=9"))
        clock.advance_ns(NS_PER_S)
        _token(_confirm(stack, secret, early))
        assert _confirm(stack, secret, other, "output=9").status_code == 200


def test_a_queue_lets_a_request_stand_in_line_where_nothing_runs_and_tells_in_the_end(
    limited: Stack, seller: RunningSimulator
) -> None:
    secret, limit = _half_spent(limited, Step(100, StepAction.QUEUE, timeout_s=1))
    begun = time.monotonic()
    refused = ask(limited, secret, "output=10", max_tokens=600)
    assert 1.0 <= time.monotonic() - begun < 3
    assert (refused.status_code, refused.json()["error"]["code"]) == (402, "tenant_budget_exceeded")
    assert refused.json()["error"]["limit"]["waits_for"] == "period"
    record = record_of(limited, refused)
    assert record.over_limit_action == "queue,reject"
    assert record.steps == [{"limitId": str(limit.id), "percent": 100, "action": "queue"}]
    assert record.waited_ns >= 1_000_000_000
    assert seller.bill()["requests"] == 1


def test_what_queues_passes_when_the_cap_is_raised(
    limited: Stack, seller: RunningSimulator
) -> None:
    step = Step(100, StepAction.QUEUE, timeout_s=60)
    secret, _ = _half_spent(limited, step)
    queued = Asking(limited, secret, "output=10", max_tokens=600)
    until_waiting(limited)
    scope = limited.scope(ScopeKind.ORGANIZATION)
    budget(limited, scope, "1.20", step, hold=Hold.BOUND, version=1)
    answer = queued.answer()
    record = record_of(limited, answer)
    waited = f"queue,waited={record.waited_ns // 1_000_000}ms"
    assert answer.headers["x-comptroller-over-limit"] == waited
    assert (answer.status_code, actions(record)) == (200, ["queue"])
    assert record.over_limit_action == "queue"


def test_a_limit_refuses_with_the_code_and_status_of_its_step(
    limited: Stack, seller: RunningSimulator
) -> None:
    step = Step(100, StepAction.REFUSE, code="ask_finance", status=403)
    secret, _ = _half_spent(limited, step)
    refused = ask(limited, secret, "output=10", max_tokens=600)
    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "ask_finance")
    assert record_of(limited, refused).code == "ask_finance"
    assert seller.bill()["requests"] == 1


def test_an_estimate_tells_the_steps_and_takes_none(
    limited: Stack, seller: RunningSimulator
) -> None:
    secret, limit = _half_spent(limited, DOWNGRADE, Step(50, StepAction.CONFIRM))
    asked = {"model": DEAR, "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 10}
    found = httpx.post(
        f"{limited.base_url}/comptroller/estimate",
        json=asked,
        headers={"authorization": f"Bearer {secret}"},
    ).json()
    step = {"limitId": str(limit.id), "percent": 50}
    assert (found["allowed"], found["served_model"]) == (True, CHEAP)
    assert found["over_limit_steps"] == [
        {**step, "action": "downgrade", "model": CHEAP},
        {**step, "action": "confirm"},
    ]
    assert found["cost_max"] == "0.001"
    assert (len(limited.records()), seller.bill()["requests"]) == (1, 1)
