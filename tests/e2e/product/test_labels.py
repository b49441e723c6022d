"""B5 and B6: features, classes, endpoints, agents, end users and sessions."""

from __future__ import annotations

from typing import Any

import pytest

from controlplane.limits.labels import label_id
from controlplane.limits.models import ScopeKind
from tests.e2e.product.tenant import Tenant, limit_object

MONTH: dict[str, Any] = {"resets_at": "2026-04-01T00:00:00+00:00", "retry_after_s": 1_521_187}
FIGURES = {"cap": "0.09", "used": "0.05", "held": "0.00", "output_tokens_that_fit": 0}
HEADERS = {
    "FEATURE": "x-comptroller-feature",
    "AGENT": "x-comptroller-agent",
    "END_USER": "x-comptroller-end-user",
    "SESSION": "x-comptroller-session",
}


@pytest.mark.parametrize("kind", HEADERS)
def test_b5_and_b6_each_label_has_the_budget_of_its_kind_and_a_named_one_its_own(
    tenant: Tenant, kind: str
) -> None:
    key = tenant.key()
    label = {"organizationId": tenant.id, "kind": kind}
    tenant.budget({"label": label}, "0.09")
    tenant.budget({"label": {**label, "label": "large"}}, "0.14")

    def refuse(name: str, cap: str, used: str) -> None:
        kind_of_scope = ScopeKind(kind.lower())
        figures = {**FIGURES, "cap": cap, "used": used}
        expected = limit_object(
            kind.lower(), label_id(kind_of_scope, name), "calendar_month", **MONTH, **figures
        )
        code = f"{kind.lower()}_budget_exceeded"
        refused = tenant.refuse(key, 402, code, limit=expected, headers={HEADERS[kind]: name})
        assert getattr(refused.record, kind.lower()) == name

    for name in ("one", "two"):
        tenant.spend(key, headers={HEADERS[kind]: name})
        refuse(name, "0.09", "0.05")
    tenant.spend(key, 2, headers={HEADERS[kind]: "large"})
    refuse("large", "0.14", "0.10")
    # Labels are compared exactly, and who names none is not under these.
    tenant.spend(key, headers={HEADERS[kind]: "One"})
    tenant.spend(key, 3)


BLOCKED = [
    ({"featuresBlocked": ["chat"]}, {"x-comptroller-feature": "chat"}, "feature_blocked"),
    ({"classesBlocked": ["BATCH"]}, {"x-comptroller-class": "batch"}, "request_class_blocked"),
    ({"classesBlocked": ["INTERACTIVE"]}, {}, "request_class_blocked"),
    ({"endpointsBlocked": ["/v1/chat/completions"]}, {}, "endpoint_blocked"),
]


@pytest.mark.parametrize("scope", ["organizationId", "teamId", "keyId"])
@pytest.mark.parametrize(("rule", "headers", "code"), BLOCKED)
def test_b5_what_is_blocked_is_refused_wherever_the_rule_is_set(
    tenant: Tenant, scope: str, rule: dict[str, Any], headers: dict[str, str], code: str
) -> None:
    key = tenant.member_key()
    ids = {"organizationId": tenant.id, "teamId": tenant.team_id, "keyId": key.id}
    set_ = tenant.mutate("ruleSet", "rule { version }", scope={scope: ids[scope]}, **rule)
    tenant.refuse(key, 403, code, headers=headers)
    version = set_["rule"]["version"]
    lifted = {name: [] for name in rule}
    tenant.mutate("ruleSet", scope={scope: ids[scope]}, expectedVersion=version, **lifted)
    tenant.spend(key, headers=headers)


def test_b5_a_fixed_label_is_counted_whatever_is_sent_and_another_is_refused(
    tenant: Tenant,
) -> None:
    key = tenant.key()
    fixed = [{"label": "FEATURE", "value": "search"}, {"label": "CLASS", "value": "batch"}]
    tenant.mutate("ruleSet", scope={"keyId": key.id}, fixed=fixed)
    label = {"organizationId": tenant.id, "kind": "FEATURE", "label": "search"}
    tenant.budget({"label": label}, "0.14")
    tenant.spend(key)
    tenant.spend(key, headers={"x-comptroller-feature": "search"})
    tenant.refuse(key, 403, "attribution_not_allowed", headers={"x-comptroller-feature": "other"})
    figures = {**FIGURES, "cap": "0.14", "used": "0.10"}
    search = label_id(ScopeKind.FEATURE, "search")
    expected = limit_object("feature", search, "calendar_month", **MONTH, **figures)
    refused = tenant.refuse(key, 402, "feature_budget_exceeded", limit=expected)
    assert (refused.record.feature, refused.record.request_class) == ("search", "batch")


@pytest.mark.parametrize(
    "label", ["FEATURE", "AGENT", "END_USER", "SESSION", "ENVIRONMENT", "CLASS"]
)
def test_b5_a_required_label_must_be_sent(tenant: Tenant, label: str) -> None:
    key = tenant.key()
    tenant.mutate("ruleSet", scope={"organizationId": tenant.id}, required=[label])
    header = f"x-comptroller-{label.lower().replace('_', '-')}"
    refused = tenant.refuse(key, 400, "attribution_required")
    assert refused.error["param"] == header
    tenant.spend(key, headers={header: "batch"})


def test_b6_a_budget_of_a_feature_counts_some_models_alone(tenant: Tenant) -> None:
    key = tenant.key()
    label = {"organizationId": tenant.id, "kind": "FEATURE"}
    tenant.budget({"label": label}, "0.05", where={"tiers": ["premium"]})
    feature = {"x-comptroller-feature": "chat"}
    tenant.spend(key, model="premium", headers=feature)
    tenant.spend(key, 3, model="economy", headers=feature)
    expected = limit_object(
        "feature",
        label_id(ScopeKind.FEATURE, "chat"),
        "calendar_month",
        requested="0.04",
        **MONTH,
        **{**FIGURES, "cap": "0.05", "used": "0.04"},
    )
    tenant.refuse(
        key, 402, "feature_budget_exceeded", limit=expected, model="premium", headers=feature
    )
