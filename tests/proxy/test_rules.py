"""Static policy over HTTP: what is refused costs nothing, and what is filled in is told."""

from __future__ import annotations

import json
from typing import Any

import pytest

from comptroller.simulator.running import RunningSimulator
from controlplane.limits.models import Hold, ScopeKind
from controlplane.money import parse_money
from tests.proxy.limited import (
    CHEAP,
    DEAR,
    Asking,
    ask,
    budget,
    concurrency,
    record_of,
    rule,
    until_asked,
)
from tests.proxy.untouched import assert_untouched
from tests.stack import Stack

# what the rule says, headers that are sent, status, code, and whether the code's parameter is told
REFUSED: dict[str, tuple[dict[str, Any], dict[str, str], int, str, str | None]] = {
    "model": ({"models": [CHEAP]}, {}, 403, "model_not_allowed", "model"),
    "tier": ({"tiers": ["basic"]}, {}, 403, "model_not_allowed", "model"),
    "provider": ({"providers": ["openai"]}, {}, 403, "provider_not_allowed", "model"),
    "blocked provider": (
        {"providers_blocked": ["simulator"]}, {}, 403, "provider_not_allowed", "model",
    ),
    "feature": (
        {"features_blocked": ["chat"]},
        {"x-comptroller-feature": "chat"},
        403,
        "feature_blocked",
        None,
    ),
    "class": (
        {"classes_blocked": ["batch"]},
        {"x-comptroller-class": "batch"},
        403,
        "request_class_blocked",
        None,
    ),
    "class of all": (
        {"classes_blocked": ["interactive"]}, {}, 403, "request_class_blocked", None,
    ),
    "endpoint": (
        {"endpoints_blocked": ["/v1/chat/completions"]}, {}, 403, "endpoint_blocked", None,
    ),
    "tokens": (
        {"tokens_per_request_max": 20}, {}, 403, "tokens_per_request_exceeded", "max_tokens",
    ),
    "fixed": (
        {"fixed": {"feature": "search"}},
        {"x-comptroller-feature": "chat"},
        403,
        "attribution_not_allowed",
        "x-comptroller-feature",
    ),
    "required": (
        {"required": ["agent"]}, {}, 400, "attribution_required", "x-comptroller-agent",
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", [ScopeKind.ORGANIZATION, ScopeKind.TEAM, ScopeKind.KEY])
@pytest.mark.parametrize("what", REFUSED)
def test_what_a_rule_forbids_is_refused_and_costs_nothing(
    limited: Stack, seller: RunningSimulator, what: str, kind: ScopeKind
) -> None:
    changes, more, status, code, param = REFUSED[what]
    key_id, secret = limited.key()
    rule(limited, limited.scope(kind, key_id), **changes)
    refused = ask(limited, secret, "output=10", max_tokens=20, more=more)
    error = refused.json()["error"]
    assert (refused.status_code, error["code"], error["param"]) == (status, code, param)
    assert refused.headers["x-should-retry"] == "false"
    assert "limit" not in error
    assert_untouched(limited, seller, [code])


def test_what_no_rule_forbids_passes(limited: Stack, seller: RunningSimulator) -> None:
    secret = limited.key()[1]
    rule(
        limited,
        limited.scope(ScopeKind.ORGANIZATION),
        models=[DEAR],
        tiers=["premium"],
        providers=["simulator"],
        features_blocked=["search"],
        classes_blocked=["batch"],
        endpoints_blocked=["/v1/embeddings"],
        required=["agent"],
    )
    more = {"x-comptroller-feature": "chat", "x-comptroller-agent": "coder"}
    answer = ask(limited, secret, "output=10", max_tokens=20, more=more)
    assert answer.status_code == 200
    record = record_of(limited, answer)
    assert (record.feature, record.agent, record.request_class) == ("chat", "coder", "interactive")


def test_a_request_may_use_exactly_the_tokens_that_one_may(
    limited: Stack, seller: RunningSimulator
) -> None:
    secret = limited.key()[1]
    counted = ask(limited, secret, "output=1", max_tokens=1).json()["usage"]["prompt_tokens"]
    scope = limited.scope(ScopeKind.ORGANIZATION)
    statuses = []
    for room in range(40):
        rule(limited, scope, tokens_per_request_max=counted + 20 + room)
        statuses.append(ask(limited, secret, "output=1", max_tokens=20).status_code)
        if statuses[-1] == 200:
            break
    refused = ask(limited, secret, "output=1", max_tokens=21)
    assert statuses[-1] == 200
    assert refused.json()["error"]["code"] == "tokens_per_request_exceeded"


def test_a_fixed_label_is_what_counts_whether_it_is_sent_or_not(
    limited: Stack, seller: RunningSimulator
) -> None:
    secret = limited.key()[1]
    fixed = {"feature": "search", "environment": "production"}
    rule(limited, limited.scope(ScopeKind.TEAM), fixed=fixed, required=["feature"])
    for more in ({}, {"x-comptroller-feature": "search"}):
        answer = ask(limited, secret, "output=1", max_tokens=1, more=more)
        assert answer.status_code == 200
        record = record_of(limited, answer)
        assert (record.feature, record.environment) == ("search", "production")


def test_a_request_without_a_cap_gets_the_one_of_the_policy_and_is_told(
    limited: Stack, seller: RunningSimulator
) -> None:
    secret = limited.key()[1]
    rule(limited, limited.scope(ScopeKind.ORGANIZATION), output_tokens_default=25)
    answer = ask(limited, secret, "output=100")
    assert answer.headers["x-comptroller-output-cap"] == "25"
    assert json.loads(seller.requests()[-1]["body_start"])["max_tokens"] == 25
    assert answer.json()["usage"]["completion_tokens"] == 25
    record = record_of(limited, answer)
    assert (record.output_cap, record.bound_nanos) == (25, parse_money("0.025"))
    own = ask(limited, secret, "output=100", max_completion_tokens=30)
    assert "x-comptroller-output-cap" not in own.headers
    sent = json.loads(seller.requests()[-1]["body_start"])
    assert ("max_tokens" in sent, sent["max_completion_tokens"]) == (False, 30)


def test_the_same_request_that_fails_again_and_again_is_cut_off_until_it_succeeds(
    limited: Stack, seller: RunningSimulator
) -> None:
    secret = limited.key()[1]
    rule(limited, limited.scope(ScopeKind.ORGANIZATION), retry_storm_max=2)
    seller.add_fault("server_error", times=2)
    statuses = [ask(limited, secret, "output=1").status_code for _ in "ab"]
    assert statuses == [502, 502]
    stormed = ask(limited, secret, "output=1")
    error = stormed.json()["error"]
    assert (stormed.status_code, error["code"]) == (429, "retry_storm")
    assert 55 <= int(stormed.headers["retry-after"]) <= 60
    assert stormed.headers["x-should-retry"] == "false"
    assert record_of(limited, stormed).code == "retry_storm"
    # Another body, and another key, are other requests.
    assert ask(limited, secret, "output=2").status_code == 200
    assert ask(limited, limited.key()[1], "output=1").status_code == 200
    assert ask(limited, secret, "output=1").status_code == 429
    assert seller.bill()["requests"] == 2
    assert len(seller.requests()) == 4


def test_a_request_that_has_succeeded_may_fail_anew(
    limited: Stack, seller: RunningSimulator
) -> None:
    secret = limited.key()[1]
    rule(limited, limited.scope(ScopeKind.ORGANIZATION), retry_storm_max=2)
    seller.add_fault("server_error", times=1)
    assert ask(limited, secret, "output=1").status_code == 502
    assert ask(limited, secret, "output=1").status_code == 200
    seller.add_fault("server_error", times=1)
    assert ask(limited, secret, "output=1").status_code == 502
    assert ask(limited, secret, "output=1").status_code == 200


def test_no_more_requests_run_at_a_time_than_may(limited: Stack, seller: RunningSimulator) -> None:
    key_id, secret = limited.key()
    concurrency(limited, limited.scope(ScopeKind.KEY, key_id), 2)
    running = [Asking(limited, secret, "output=1 latency_ms=1200", max_tokens=1) for _ in "ab"]
    until_asked(seller, 2)
    refused = ask(limited, secret, "output=1", max_tokens=1)
    error = refused.json()["error"]
    assert (refused.status_code, error["code"]) == (429, "concurrency_exceeded")
    assert (refused.headers["retry-after"], refused.headers["x-should-retry"]) == ("1", "true")
    limit = error["limit"]
    assert (limit["resource"], limit["window"]) == ("concurrency", "now")
    assert (limit["waits_for"], limit["cap"], limit["requested"]) == ("open_requests", 2, 1)
    assert limit["used"] + limit["held"] == 2
    assert [each.answer().status_code for each in running] == [200, 200]
    assert ask(limited, secret, "output=1", max_tokens=1).status_code == 200
    assert record_of(limited, refused).over_limit_action == "reject"


DETAILS = {
    "own": (False, True),
    "all": (True, True),
    "none": (False, False),
}


@pytest.mark.parametrize("detail", DETAILS)
def test_a_policy_says_whose_figures_a_refusal_tells(
    limited: Stack, seller: RunningSimulator, detail: str
) -> None:
    rule(limited, limited.scope(ScopeKind.ORGANIZATION), refusal_detail=detail)
    told = []
    for kind in (ScopeKind.ORGANIZATION, ScopeKind.KEY):
        key_id, secret = limited.key()
        scope = limited.scope(kind, key_id)
        budget(limited, scope, "0.01", hold=Hold.BOUND)
        limit = ask(limited, secret, "output=20", max_tokens=20).json()["error"]["limit"]
        shown = {"cap", "used", "held", "output_tokens_that_fit"} & limit.keys()
        assert len(shown) in {0, 4}
        told.append(bool(shown))
        if kind is ScopeKind.ORGANIZATION:
            budget(limited, scope, "100.00", hold=Hold.BOUND, version=1)
    assert tuple(told) == DETAILS[detail]
    assert_untouched(limited, seller, ["tenant_budget_exceeded", "key_budget_exceeded"])
