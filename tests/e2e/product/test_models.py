"""M1 to M3: which models may be used, and being served by a cheaper one."""

from __future__ import annotations

from typing import Any

import openai
import pytest

from tests.e2e.product.tenant import Tenant, limit_object

MONTH: dict[str, Any] = {"resets_at": "2026-04-01T00:00:00+00:00", "retry_after_s": 1_521_187}
MODELS = ("premium", "standard", "economy", "elsewhere", "sim-flat-0.05")
OVER = "x-comptroller-over-limit"

# A rule, and which of the models it lets pass; the last has no tier.
RULES: list[tuple[dict[str, Any], set[str], str]] = [
    ({"models": ["economy"]}, {"economy"}, "model_not_allowed"),
    ({"models": []}, set(), "model_not_allowed"),
    ({"tiers": ["economy"]}, {"economy", "elsewhere"}, "model_not_allowed"),
    ({"tiers": ["premium", "standard"]}, {"premium", "standard"}, "model_not_allowed"),
    ({"providers": ["other"]}, {"elsewhere"}, "provider_not_allowed"),
    ({"providersBlocked": ["other"]}, {*MODELS} - {"elsewhere"}, "provider_not_allowed"),
    ({"providersBlocked": ["other", "simulator"]}, set(), "provider_not_allowed"),
]


@pytest.mark.parametrize("scope", ["organizationId", "teamId", "keyId"])
@pytest.mark.parametrize(("rule", "allowed", "code"), RULES)
def test_m1_and_m2_a_rule_holds_for_the_next_request(
    tenant: Tenant, scope: str, rule: dict[str, Any], allowed: set[str], code: str
) -> None:
    key = tenant.member_key()
    ids = {"organizationId": tenant.id, "teamId": tenant.team_id, "keyId": key.id}
    for model in MODELS:
        tenant.spend(key, model=model)
    made = tenant.mutate("ruleSet", "rule { version }", scope={scope: ids[scope]}, **rule)
    for model in MODELS:
        if model in allowed:
            tenant.spend(key, model=model)
            continue
        refused = tenant.refuse(key, 403, code, model=model)
        assert repr(model) in refused.error["message"]
        assert refused.error["param"] == "model"
        assert scope.removesuffix("Id") in refused.error["message"]
    lifted = dict.fromkeys(rule, [] if "providersBlocked" in rule else None)
    version = made["rule"]["version"]
    tenant.mutate("ruleSet", scope={scope: ids[scope]}, expectedVersion=version, **lifted)
    for model in MODELS:
        tenant.spend(key, model=model)


def test_m1_each_scope_must_allow_a_model(tenant: Tenant) -> None:
    key = tenant.member_key(allowedModels=["economy", "standard", "premium"])
    tenant.mutate("ruleSet", scope={"organizationId": tenant.id}, tiers=["economy", "standard"])
    tenant.mutate("ruleSet", scope={"teamId": tenant.team_id}, models=["economy", "elsewhere"])
    tenant.spend(key, model="economy")
    for model in ("premium", "standard", "elsewhere", "sim-flat-0.05"):
        tenant.refuse(key, 403, "model_not_allowed", model=model)
    with openai.OpenAI(base_url=tenant.stack.base_url, api_key=key.secret) as client:
        assert [each.id for each in client.models.list()] == ["economy"]
        with pytest.raises(openai.PermissionDeniedError) as caught:
            client.chat.completions.create(
                model="premium", messages=[{"role": "user", "content": "Hello"}]
            )
    assert caught.value.code == "model_not_allowed"


def _steps(tenant: Tenant) -> list[tuple[Any, ...]]:
    record = tenant.last_record()
    return [(each["percent"], each["action"], each.get("model")) for each in record.steps]


def test_m3_past_a_percent_requests_are_served_by_the_cheaper_model(tenant: Tenant) -> None:
    key = tenant.key()
    steps = [
        {"percent": 50, "action": "DOWNGRADE", "model": "standard"},
        {"percent": 80, "action": "DOWNGRADE", "model": "economy"},
    ]
    tenant.budget({"keyId": key.id}, "0.20", steps=steps)
    served = []
    for _ in range(8):
        answer = tenant.spend(key)
        served.append((answer.headers.get(OVER), answer.headers["x-comptroller-served-model"]))
    # 50 % is reached by 0.10, 80 % by 0.16; then both steps are taken, one after the other.
    both = "downgrade=standard,downgrade=economy"
    assert served == [
        (None, "sim-flat-0.05"),
        (None, "sim-flat-0.05"),
        ("downgrade=standard", "sim-flat-0.02"),
        ("downgrade=standard", "sim-flat-0.02"),
        ("downgrade=standard", "sim-flat-0.02"),
        (both, "sim-flat-0.01"),
        (both, "sim-flat-0.01"),
        (both, "sim-flat-0.01"),
    ]
    assert _steps(tenant) == [(50, "downgrade", "standard"), (80, "downgrade", "economy")]
    tenant.spend(key)
    figures = {"cap": "0.20", "used": "0.20", "held": "0.00", "output_tokens_that_fit": 0}
    expected = limit_object("key", key.uuid, "calendar_month", **MONTH, **figures)
    refused = tenant.refuse(key, 402, "key_budget_exceeded", limit=expected)
    assert refused.record.steps == []


def test_m3_at_the_cap_a_cheaper_model_serves_what_still_fits(tenant: Tenant) -> None:
    key = tenant.key()
    steps = [{"percent": 100, "action": "DOWNGRADE", "model": "economy"}]
    tenant.budget({"keyId": key.id}, "0.12", steps=steps)
    headers = [tenant.spend(key).headers.get(OVER) for _ in range(4)]
    assert headers == [None, None, "downgrade=economy", "downgrade=economy"]
    figures = {"cap": "0.12", "used": "0.12", "held": "0.00", "output_tokens_that_fit": 0}
    expected = limit_object("key", key.uuid, "calendar_month", **MONTH, **figures)
    tenant.refuse(key, 402, "key_budget_exceeded", limit=expected)


REFUSING = [
    ({"models": ["sim-flat-0.05"]}, "economy"),
    ({"providersBlocked": ["other"]}, "elsewhere"),
    ({}, "no-such-model"),
]


@pytest.mark.parametrize(("rule", "model"), REFUSING)
def test_m3_nothing_is_downgraded_to_what_may_not_be_used(
    tenant: Tenant, rule: dict[str, Any], model: str
) -> None:
    key = tenant.key()
    steps = [{"percent": 100, "action": "DOWNGRADE", "model": model}]
    tenant.budget({"keyId": key.id}, "0.06", steps=steps)
    tenant.mutate("ruleSet", scope={"organizationId": tenant.id}, **rule)
    tenant.spend(key)
    figures = {"cap": "0.06", "used": "0.05", "held": "0.00", "output_tokens_that_fit": 0}
    expected = limit_object("key", key.uuid, "calendar_month", **MONTH, **figures)
    refused = tenant.refuse(key, 402, "key_budget_exceeded", limit=expected)
    assert refused.record.steps == []


def test_m3_a_downgraded_stream_says_so_in_its_head(tenant: Tenant) -> None:
    key = tenant.key()
    steps = [{"percent": 50, "action": "DOWNGRADE", "model": "economy"}]
    tenant.budget({"keyId": key.id}, "0.10", steps=steps)
    tenant.spend(key)
    with openai.OpenAI(base_url=tenant.stack.base_url, api_key=key.secret) as client:
        raw = client.chat.completions.with_raw_response.create(
            model="sim-flat-0.05",
            messages=[{"role": "user", "content": "Hello"}],
            stream=True,
        )
        models = {chunk.model for chunk in raw.parse()}
    assert raw.headers[OVER] == "downgrade=economy"
    assert models == {"sim-flat-0.01"}
    record = tenant.last_record()
    assert (record.requested_model, record.model, record.charge_nanos) == (
        "sim-flat-0.05",
        "economy",
        10_000_000,
    )
