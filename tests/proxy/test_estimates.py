"""Estimates: what a request would be told, without a trace of having asked."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
import pytest

from comptroller.simulator.running import RunningSimulator
from controlplane.context import Work
from controlplane.keys.models import VirtualKey
from controlplane.keys.service import revoke_key, set_key_enabled
from controlplane.limits.models import ScopeKind
from controlplane.money import format_money
from controlplane.tenancy.service import key_changed
from core_rs import EngineError
from proxy.estimates import COUNTED_BYTES_MAX
from tests.proxy.asking import ask, body, headers
from tests.proxy.untouched import assert_untouched
from tests.stack import Stack


def estimate(stack: Stack, secret: str, given: Any = None, **more: str) -> httpx.Response:
    """Ask for an estimate of a body, which may be text that is no JSON."""
    given = body() if given is None else given
    # As compact as the other clients write it, since the bound counts bytes.
    content = given if isinstance(given, bytes) else json.dumps(given, separators=(",", ":"))
    return httpx.post(
        f"{stack.base_url}/comptroller/estimate",
        content=content,
        headers={"content-type": "application/json", **headers(secret), **more},
        timeout=30,
    )


def states(stack: Stack) -> list[dict[str, Any]]:
    """Give what every limit of the organization stands at, but for the instants."""
    clock = stack.comptroller.clock
    organization = str(stack.organization_id)
    found = json.loads(stack.engine.limit_states(organization, clock.wall_ns(), clock.mono_ns()))
    return [
        {name: value for name, value in state.items() if not name.endswith("_ns")}
        for state in found
    ]


def test_an_estimate_tells_the_bound_and_what_the_input_costs(
    stack: Stack, provider: RunningSimulator
) -> None:
    _, secret = stack.key()
    answer = estimate(stack, secret, body(n=2))
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-request-id"].startswith("req_")
    assert len(answer.headers["x-comptroller-policy-version"]) == 64
    found = answer.json()
    input_tokens_max = found.pop("input_tokens_max")
    # 9 tokens at 0.15 and at most 2 x 20 at 0.60 per million; bytes bound the input from above.
    assert 9 < input_tokens_max < 100
    assert found == {
        "object": "comptroller.estimate",
        "allowed": True,
        "model": "sim-small",
        "served_model": "sim-small",
        "provider": "simulator",
        "currency": "USD",
        "output_tokens_max": 40,
        "cost_max": format_money(input_tokens_max * 150 + 40 * 600),
        "input_tokens": 9,
        "cost_input": "0.00000135",
        "over_limit_steps": [],
        "refusal": None,
    }
    assert_untouched(stack, provider)


def test_a_request_holds_what_its_estimate_said(stack: Stack, provider: RunningSimulator) -> None:
    _, secret = stack.key()
    foretold = estimate(stack, secret, body()).json()
    assert ask(stack, secret=secret).status_code == 200
    [record] = stack.records()
    assert format_money(record.held_nanos) == foretold["cost_max"]
    # Our own count is never below what is billed.
    assert record.input_tokens <= foretold["input_tokens"] <= foretold["input_tokens_max"]
    assert stack.ledger_nanos() == provider.bill()["total_nanos"]


def test_long_inputs_are_counted_only_where_the_decision_depends_on_it(
    stack: Stack, provider: RunningSimulator
) -> None:
    key_id, secret = stack.key()
    long = body(messages=[{"role": "user", "content": "word " * (COUNTED_BYTES_MAX // 5)}])
    uncounted = estimate(stack, secret, long).json()
    assert (uncounted["allowed"], uncounted["input_tokens"]) == (True, None)
    assert uncounted["cost_input"] is None
    assert uncounted["input_tokens_max"] > COUNTED_BYTES_MAX
    # The bytes alone would not fit, the tokens do.
    stack.budget(stack.scope(ScopeKind.KEY, key_id), "0.02")
    counted = estimate(stack, secret, long).json()
    assert counted["allowed"] is True
    assert counted["input_tokens"] == counted["input_tokens_max"] < COUNTED_BYTES_MAX // 4
    assert_untouched(stack, provider)


async def test_many_estimates_at_once_move_nothing(
    stack: Stack, provider: RunningSimulator
) -> None:
    key_id, secret = stack.key(requests_per_minute=3, tokens_per_minute=1000)
    stack.budget(stack.scope(ScopeKind.KEY, key_id), "0.05")
    stack.breaker(stack.scope(ScopeKind.ORGANIZATION), minute="0.06")
    before = states(stack)
    assert len(before) >= 5
    async with httpx.AsyncClient(headers=headers(secret), timeout=60) as client:
        address = f"{stack.base_url}/comptroller/estimate"
        asked = [client.post(address, json=body(model="sim-flat-0.05")) for _ in range(200)]
        answers = await asyncio.gather(*asked)
    assert {answer.status_code for answer in answers} == {200}
    assert {answer.json()["allowed"] for answer in answers} == {True}
    assert {answer.json()["cost_max"] for answer in answers} == {"0.05"}
    assert states(stack) == before
    assert_untouched(stack, provider)
    # All of the key's room is still there: for one request, and no more.
    real = [ask(stack, secret=secret, model="sim-flat-0.05").status_code for _ in range(2)]
    assert real == [200, 402]


@pytest.mark.parametrize(
    "kind", [ScopeKind.KEY, ScopeKind.MEMBER, ScopeKind.TEAM, ScopeKind.ORGANIZATION]
)
def test_a_refusal_is_the_one_a_request_gets_right_after(
    stack: Stack, provider: RunningSimulator, kind: ScopeKind
) -> None:
    key_id, secret = stack.key()
    stack.budget(stack.scope(kind, key_id), "0.07")
    assert ask(stack, secret=secret, model="sim-flat-0.05").status_code == 200
    before, bill = states(stack), provider.bill()
    answer = estimate(stack, secret, body(model="sim-flat-0.05"))
    assert answer.status_code == 200
    assert "retry-after" not in answer.headers
    found = answer.json()
    assert (found["allowed"], found["cost_max"]) == (False, "0.05")
    assert states(stack) == before
    real = ask(stack, secret=secret, model="sim-flat-0.05")
    refusal, error = found["refusal"], real.json()["error"]
    assert refusal.pop("status") == real.status_code == 402
    assert refusal.keys() == error.keys()
    assert refusal["limit"].keys() == error["limit"].keys()
    assert ("cap" in error["limit"]) == (kind in {ScopeKind.KEY, ScopeKind.MEMBER})
    for limit in (refusal["limit"], error["limit"]):
        assert limit.pop("retry_after_s") > 0
    refusal.pop("message"), error.pop("message")
    assert refusal == error
    assert provider.bill() == bill
    assert len(stack.records()) == 2


def test_rates_and_breakers_are_foretold_too(stack: Stack, provider: RunningSimulator) -> None:
    _, secret = stack.key(requests_per_minute=1)
    assert ask(stack, secret=secret, model="sim-flat-0.05").status_code == 200
    refusal = estimate(stack, secret).json()["refusal"]
    assert (refusal["status"], refusal["code"]) == (429, "rate_limit_exceeded")
    assert ask(stack, secret=secret).json()["error"]["code"] == "rate_limit_exceeded"
    stack.breaker(stack.scope(ScopeKind.TEAM), minute="0.05")
    _, other = stack.key()
    refusal = estimate(stack, other).json()["refusal"]
    assert (refusal["status"], refusal["code"]) == (503, "spend_circuit_open")
    assert ask(stack, secret=other).json()["error"]["code"] == "spend_circuit_open"
    assert provider.bill()["requests"] == 1


@pytest.mark.parametrize(
    "given",
    [
        b"",
        b"{",
        b"[]",
        body(messages=[]),
        body(max_tokens=0),
        body(unknown=1),
        body(model="no-such-model"),
        body(model="gpt-4o"),
        body(audio={}),
        body(service_tier="flex"),
        body(messages=[{"role": "user", "content": [{"type": "image_url"}]}]),
        b'{"model": "sim-small", "Model": "sim-small"}',
    ],
)
def test_a_request_that_is_wrong_gets_the_same_answer_on_both_routes(
    stack: Stack, provider: RunningSimulator, given: Any
) -> None:
    _, secret = stack.key(allowed_models=("sim-small", "sim-flat-0.05", "no-such-model"))
    foretold = estimate(stack, secret, given)
    assert_untouched(stack, provider)
    content = given if isinstance(given, bytes) else json.dumps(given).encode()
    real = httpx.post(
        f"{stack.base_url}/chat/completions",
        content=content,
        headers={"content-type": "application/json", **headers(secret)},
    )
    assert (foretold.status_code, foretold.json()) == (real.status_code, real.json())
    assert 400 <= foretold.status_code < 500
    assert foretold.headers["x-should-retry"] == real.headers["x-should-retry"] == "false"
    assert foretold.headers["x-request-id"] != real.headers["x-request-id"]


@pytest.mark.parametrize(
    ("more", "status", "code"),
    [
        ({"x-comptroller-feature": "x" * 201}, 400, "invalid_header"),
        ({"x-comptroller-class": "best"}, 400, "invalid_header"),
        ({"content-type": "text/plain"}, 415, "unsupported_media_type"),
        ({"content-encoding": "gzip"}, 415, "unsupported_content_encoding"),
        ({"x-api-key": "another"}, 400, "ambiguous_credentials"),
    ],
)
def test_heads_are_checked_as_those_of_requests(
    stack: Stack, provider: RunningSimulator, more: dict[str, str], status: int, code: str
) -> None:
    answer = estimate(stack, stack.key()[1], **more)
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
    assert_untouched(stack, provider)


def test_only_keys_that_work_get_estimates(stack: Stack, provider: RunningSimulator) -> None:
    def told(secret: str) -> tuple[int, str]:
        answer = estimate(stack, secret)
        return answer.status_code, answer.json()["error"]["code"]

    async def expire(work: Work) -> None:
        key = await work.session.get(VirtualKey, expired_id)
        assert key is not None
        key.expires_at = work.now
        await key_changed(work, organization, expired_id, policy=False)

    (disabled_id, disabled), (revoked_id, revoked) = stack.key(), stack.key()
    (expired_id, expired), organization = stack.key(), stack.organization_id
    assert estimate(stack, expired).json()["allowed"] is True
    stack.change(expire)
    stack.change(lambda work: set_key_enabled(work, organization, disabled_id, enabled=False))
    stack.change(lambda work: revoke_key(work, organization, revoked_id))
    assert told(disabled) == (403, "key_disabled")
    assert told(revoked) == told(expired) == told("ck_live_nothing") == (401, "invalid_api_key")
    assert_untouched(stack, provider)


@pytest.mark.parametrize(
    ("method", "path", "status", "code", "allow"),
    [
        ("GET", "/comptroller/estimate", 405, "method_not_allowed", "POST"),
        ("POST", "/comptroller/limits", 405, "method_not_allowed", "GET"),
        ("DELETE", "/comptroller/limits", 405, "method_not_allowed", "GET"),
        ("GET", "/comptroller", 404, "not_found", None),
        ("POST", "/comptroller/estimates", 404, "not_found", None),
        ("GET", "/comptroller/limits/1", 404, "not_found", None),
    ],
)
def test_other_methods_and_paths_are_told_so(
    stack: Stack, method: str, path: str, status: int, code: str, allow: str | None
) -> None:
    answer = httpx.request(method, f"{stack.base_url}{path}", headers=headers(stack.key()[1]))
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
    assert answer.headers.get("allow") == allow
    assert answer.headers["x-request-id"].startswith("req_")
    assert answer.headers["x-should-retry"] == "false"


@pytest.mark.parametrize(
    ("route", "method", "path"),
    [
        ("_estimates", "POST", "/comptroller/estimate"),
        ("_limits", "GET", "/comptroller/limits"),
        ("_models", "GET", "/models"),
    ],
)
def test_a_fault_of_ours_is_answered_and_tells_nothing(
    stack: Stack, monkeypatch: pytest.MonkeyPatch, route: str, method: str, path: str
) -> None:
    _, secret = stack.key()
    # A part that is missing stands for any fault that nobody thought of.
    monkeypatch.setattr(getattr(stack.comptroller.proxy, route), "_engine", None)
    answer = httpx.request(method, f"{stack.base_url}{path}", headers=headers(secret), json=body())
    assert (answer.status_code, answer.json()["error"]["code"]) == (500, "internal_error")
    assert "NoneType" not in answer.text
    assert answer.headers["x-request-id"].startswith("req_")
    assert answer.headers["x-should-retry"] == "false"
    monkeypatch.undo()
    assert httpx.request(
        method, f"{stack.base_url}{path}", headers=headers(secret), json=body()
    ).is_success


def test_what_cannot_be_decided_is_not_estimated(
    stack: Stack, provider: RunningSimulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Undecided:
        def preview(self, *_arguments: object) -> None:
            error = EngineError("too many settlements wait for the ledger")
            error.code = "unbooked_full"
            raise error

    _, secret = stack.key()
    monkeypatch.setattr(stack.comptroller.proxy._estimates, "_engine", Undecided())
    answer = estimate(stack, secret)
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "enforcement_unavailable")
    assert (answer.headers["x-should-retry"], answer.headers["retry-after"]) == ("true", "1")
    assert_untouched(stack, provider)
