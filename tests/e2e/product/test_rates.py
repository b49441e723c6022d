"""R1 to R6 and K6: requests and tokens a minute, plans, providers, retry storms, concurrency."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from controlplane.limits.labels import label_id
from controlplane.limits.models import ScopeKind
from controlplane.money import parse_money
from tests.e2e.product.tenant import Key, Tenant, limit_object

TenantAt = Callable[[str], Tenant]
NOON = "2026-03-14T12:00:00Z"


def _rate(scope: str, scope_id: object, resource: str, **given: Any) -> dict[str, Any]:
    return limit_object(scope, scope_id, "rolling_60s", resource=resource, **given)


@pytest.mark.parametrize("scope", ["key", "member", "team", "organization"])
@pytest.mark.parametrize("per_minute", [1, 3])
def test_r1_requests_a_minute_slide(tenant_at: TenantAt, scope: str, per_minute: int) -> None:
    tenant = tenant_at(NOON)
    stack, key = tenant.stack, tenant.member_key()
    scopes: dict[str, tuple[str, str, object]] = {
        "key": ("keyId", key.id, key.uuid),
        "member": ("memberId", tenant.member_id, stack.member_id),
        "team": ("teamId", tenant.team_id, stack.team_id),
        "organization": ("organizationId", tenant.id, stack.organization_id),
    }
    name, id_, uuid = scopes[scope]
    tenant.mutate("rateLimitSet", scope={name: id_}, requestsPerMinute=str(per_minute))
    tenant.spend(key, per_minute)
    tenant.wait(30)
    figures = {"cap": per_minute, "used": per_minute, "held": 0}
    expected = _rate(
        scope,
        uuid,
        "requests",
        requested=1,
        resets_at="2026-03-14T12:01:01+00:00",
        retry_after_s=31,
        **(figures if scope in {"key", "member"} else {}),
    )
    code, retry = "rate_limit_exceeded", ("31", "true")
    refused = tenant.refuse(key, 429, code, limit=expected, retry=retry)
    limit_header = refused.answer.headers.get("x-ratelimit-limit-requests")
    assert limit_header == (str(per_minute) if scope == "key" else None)
    tenant.wait(30)
    tenant.refuse(key, 429, code, limit={**expected, "retry_after_s": 1}, retry=("1", "true"))
    tenant.wait(1)
    tenant.spend(key, per_minute)


def test_r1_tokens_a_minute_are_counted_as_they_were_used(tenant_at: TenantAt) -> None:
    tenant = tenant_at(NOON)
    key = tenant.key()
    used = tenant.spend(key, content="[[sim output=40]] Hello").json()["usage"]["total_tokens"]
    cap = 2 * used
    tenant.mutate("rateLimitSet", scope={"keyId": key.id}, tokensPerMinute=str(cap))
    # What was used before the limit was set counts as well.
    tenant.spend(key, content="[[sim output=40]] Hello")
    expected = _rate(
        "key",
        key.uuid,
        "tokens",
        requested=tenant.estimate(key)["input_tokens_max"] + 10,
        resets_at="2026-03-14T12:01:01+00:00",
        retry_after_s=61,
        cap=cap,
        used=cap,
        held=0,
    )
    refused = tenant.refuse(
        key, 429, "rate_limit_exceeded", limit=expected, retry=("61", "false"), max_tokens=10
    )
    assert refused.answer.headers["x-ratelimit-limit-tokens"] == str(cap)
    assert refused.answer.headers["x-ratelimit-remaining-tokens"] == "0"
    tenant.wait(61)
    tenant.spend(key)


def _plan(tenant: Tenant, name: str, **given: Any) -> str:
    made = tenant.operate("planCreate", "plan { id }", name=name, **given)
    found: str = made["plan"]["id"]
    return found


def _set_plan(tenant: Tenant, plan: str | None) -> None:
    version = tenant.ask_graphql("version")["version"]
    tenant.operate(
        "organizationSetPlan", organizationId=tenant.id, planId=plan, expectedVersion=version
    )


QUOTAS = [
    ("requestsPerDay", "plan_quota_exceeded", "calendar_day", "2026-03-15T00:00:00", 43_200),
    ("requestsPerMonth", "plan_quota_exceeded", "calendar_month", "2026-04-01T00:00:00", 1_512_000),
    ("requestsPerMinute", "rate_limit_exceeded", "rolling_60s", "2026-03-14T12:01:01", 61),
]


@pytest.mark.parametrize(("field", "code", "window", "resets_at", "retry_after_s"), QUOTAS)
def test_r2_a_plan_counts_all_keys_of_an_organization(
    tenant_at: TenantAt, field: str, code: str, window: str, resets_at: str, retry_after_s: int
) -> None:
    tenant = tenant_at(NOON)
    tenant.mutate("ruleSet", scope={"organizationId": tenant.id}, refusalDetail="ALL")
    _set_plan(tenant, _plan(tenant, "small", **{field: "3"}))
    keys = [tenant.key(), tenant.member_key()]
    for number in range(3):
        tenant.spend(keys[number % 2])

    def refuse(cap: int, used: int) -> None:
        expected = limit_object(
            "organization",
            tenant.stack.organization_id,
            window,
            resource="requests",
            requested=1,
            resets_at=f"{resets_at}+00:00",
            retry_after_s=retry_after_s,
            cap=cap,
            used=used,
            held=0,
        )
        retry = (str(retry_after_s), "false")
        for key in keys:
            tenant.refuse(key, 429, code, limit=expected, retry=retry)

    refuse(3, 3)
    # Another plan holds for the next request; what was used in the running period is kept.
    _set_plan(tenant, _plan(tenant, "large", **{field: "5"}))
    tenant.spend(keys[0], 2)
    refuse(5, 5)
    _set_plan(tenant, None)
    tenant.spend(keys[0])
    _set_plan(tenant, _plan(tenant, "none", **{field: "4"}))
    refuse(4, 6)
    tenant.go_to(f"{resets_at}Z", less_ns=1_000_000_000)
    assert tenant.ask(keys[0]).headers["retry-after"] == "1"
    tenant.go_to(f"{resets_at}Z")
    tenant.spend(keys[0])


def test_r2_the_markup_of_a_plan_holds_for_the_next_request(tenant: Tenant) -> None:
    key = tenant.key()
    tenant.spend(key)
    _set_plan(tenant, _plan(tenant, f"marked up {tenant.id}", markupPpm=100_000))
    tenant.spend(key)
    charges = [(each.cost_nanos, each.charge_nanos) for each in tenant.stack.records()]
    assert charges == [(50_000_000, 50_000_000), (50_000_000, 55_000_000)]


def test_r3_a_provider_has_requests_a_minute_across_organizations(tenant_at: TenantAt) -> None:
    tenant = tenant_at(NOON)
    other = tenant.other("other")
    limit = {"counts": "REQUESTS", "provider": "simulator", "count": "3"}
    made = tenant.operate("installationLimitSet", "installationLimit { id version }", **limit)
    keys = [(each, each.key()) for each in (tenant, other)]
    tenant.spend(keys[0][1], 2)
    other.spend(keys[1][1])
    # Its figures are those of all organizations: nobody is told them.
    expected = _rate(
        "provider",
        label_id(ScopeKind.PROVIDER, "simulator"),
        "requests",
        requested=1,
        resets_at="2026-03-14T12:01:01+00:00",
        retry_after_s=61,
    )
    for each, key in keys:
        each.refuse(key, 429, "rate_limit_exceeded", limit=expected, retry=("61", "false"))
        each.spend(key, model="elsewhere")
    installed = made["installationLimit"]
    tenant.operate(
        "installationLimitArchive",
        installationLimitId=installed["id"],
        expectedVersion=installed["version"],
    )
    tenant.spend(keys[0][1])


def test_r3_a_provider_and_the_installation_have_budgets_of_what_providers_bill(
    tenant_at: TenantAt,
) -> None:
    tenant = tenant_at(NOON)
    other = tenant.other("other")
    _set_plan(other, _plan(other, "double", markupPpm=1_000_000))
    for provider, amount in (("simulator", "0.10"), (None, "0.12")):
        tenant.operate(
            "installationLimitSet",
            counts="SPEND",
            provider=provider,
            amount=amount,
            period="DAY",
        )
    keys = [(each, each.key()) for each in (tenant, other)]
    for each, key in keys:
        each.spend(key)
    day = {"resets_at": "2026-03-15T00:00:00+00:00", "retry_after_s": 43_200}
    simulator = label_id(ScopeKind.PROVIDER, "simulator")
    expected = limit_object("provider", simulator, "calendar_day", **day)
    for each, key in keys:
        each.refuse(key, 402, "provider_budget_exceeded", limit=expected)
        each.spend(key, model="elsewhere")
    everything = label_id(ScopeKind.INSTALLATION, "")
    expected = limit_object("installation", everything, "calendar_day", requested="0.01", **day)
    code = "installation_budget_exceeded"
    tenant.refuse(keys[0][1], 402, code, limit=expected, model="elsewhere")
    assert [parse_money("0.06"), parse_money("0.12")] == [
        each.stack.ledger_nanos() for each, _ in keys
    ]


@pytest.mark.parametrize("scope", ["organizationId", "teamId", "keyId"])
def test_r4_one_request_has_at_most_so_many_tokens(tenant: Tenant, scope: str) -> None:
    key = tenant.member_key()
    estimate = tenant.estimate(key)
    most = estimate["input_tokens"] + 100
    ids = {"organizationId": tenant.id, "teamId": tenant.team_id, "keyId": key.id}
    tenant.mutate("ruleSet", scope={scope: ids[scope]}, tokensPerRequestMax=str(most))
    tenant.spend(key, max_tokens=100)
    tenant.spend(key, max_tokens=50, n=2)
    code = "tokens_per_request_exceeded"
    for fields in ({"max_tokens": 101}, {"max_tokens": 51, "n": 2}, {}):
        refused = tenant.refuse(key, 403, code, **fields)
        assert refused.error["param"] == "max_tokens"
    tenant.refuse(key, 403, code, max_tokens=100, content="Hello, hello, hello")


@pytest.mark.parametrize("most", [1, 3])
def test_r5_the_same_request_is_cut_off_when_it_keeps_failing(
    tenant_at: TenantAt, most: int
) -> None:
    tenant = tenant_at(NOON)
    key = tenant.key()
    tenant.mutate("ruleSet", scope={"keyId": key.id}, retryStormMax=most)
    failing = {"content": "[[sim fault=status status=500]] Hello"}
    for _ in range(most):
        assert tenant.ask(key, **failing).status_code == 502
        tenant.wait(1)
    left = str(60 - most)
    tenant.refuse(key, 429, "retry_storm", retry=(left, "false"), **failing)
    # Another request, and the same one of another key, are not cut off.
    tenant.spend(key)
    assert tenant.ask(tenant.key(), **failing).status_code == 502
    tenant.wait(60 - most - 1)
    tenant.refuse(key, 429, "retry_storm", retry=("1", "false"), **failing)
    tenant.wait(1)
    assert tenant.ask(key, **failing).status_code == 502


def test_k6_an_agents_key_has_a_quota_a_rate_and_fails_closed_on_retries(
    tenant_at: TenantAt,
) -> None:
    tenant = tenant_at(NOON)
    key = tenant.key(agent="crawler", requestsPerMinute=5)
    tenant.budget({"keyId": key.id}, "0.09", period="DAY")
    tenant.spend(key)
    record = tenant.last_record()
    assert record.agent == "crawler"
    other = {"x-comptroller-agent": "other"}
    tenant.refuse(key, 403, "attribution_not_allowed", headers=other)
    expected = limit_object(
        "key",
        key.uuid,
        "calendar_day",
        resets_at="2026-03-15T00:00:00+00:00",
        retry_after_s=43_200,
        cap="0.09",
        used="0.05",
        held="0.00",
        output_tokens_that_fit=0,
    )
    for _ in range(5):
        tenant.refuse(key, 402, "key_budget_exceeded", limit=expected)
    tenant.refuse(key, 429, "retry_storm", retry=("60", "false"))
    tenant.spend(key, 4, model="economy")
    # Now rate and quota are used up: the rate is named, but it is not what frees last.
    rate = _rate(
        "key",
        key.uuid,
        "requests",
        requested=1,
        resets_at="2026-03-15T00:00:00+00:00",
        retry_after_s=43_200,
        cap=5,
        used=5,
        held=0,
    )
    retry = ("43200", "false")
    tenant.refuse(
        key, 429, "rate_limit_exceeded", limit=rate, retry=retry, content="Another request"
    )


def _set_concurrency(tenant: Tenant, scope: str, key: Key, most: int) -> tuple[str, object]:
    stack = tenant.stack
    if scope == "provider":
        limit = {"counts": "CONCURRENCY", "provider": "other", "count": str(most)}
        tenant.operate("installationLimitSet", **limit)
        return "provider", label_id(ScopeKind.PROVIDER, "other")
    ids: dict[str, tuple[str, str, object]] = {
        "key": ("keyId", key.id, key.uuid),
        "team": ("teamId", tenant.team_id, stack.team_id),
        "organization": ("organizationId", tenant.id, stack.organization_id),
    }
    name, id_, uuid = ids[scope]
    tenant.mutate("concurrencyLimitSet", scope={name: id_}, requests=most)
    return scope, uuid


@pytest.mark.parametrize("scope", ["key", "team", "organization", "provider"])
@pytest.mark.parametrize("most", [1, 2])
def test_r6_so_many_requests_are_under_way_at_once(
    tenant_at: TenantAt, scope: str, most: int
) -> None:
    tenant = tenant_at(NOON)
    key = tenant.member_key()
    kind, uuid = _set_concurrency(tenant, scope, key, most)
    figures = {"cap": most, "used": most, "held": 0} if scope == "key" else {}
    expected = limit_object(
        kind,
        uuid,
        "now",
        resource="concurrency",
        requested=1,
        waits_for="open_requests",
        retry_after_s=1,
        **figures,
    )
    with tenant.running(key, most):
        tenant.refuse(
            key,
            429,
            "concurrency_exceeded",
            limit=expected,
            retry=("1", "true"),
            model="elsewhere",
        )
    tenant.spend(key, model="elsewhere")


def test_r6_no_request_may_be_under_way(tenant: Tenant) -> None:
    key = tenant.key()
    made = tenant.mutate(
        "concurrencyLimitSet",
        "concurrencyLimit { id version }",
        scope={"keyId": key.id},
        requests=0,
    )["concurrencyLimit"]
    expected = limit_object(
        "key",
        key.uuid,
        "now",
        resource="concurrency",
        requested=1,
        waits_for="never",
        cap=0,
        used=0,
        held=0,
    )
    # There is no instant at which a retry would help, so none is named.
    tenant.refuse(key, 429, "concurrency_exceeded", limit=expected)
    tenant.mutate(
        "concurrencyLimitArchive", concurrencyLimitId=made["id"], expectedVersion=made["version"]
    )
    tenant.spend(key)
