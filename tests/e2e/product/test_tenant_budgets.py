"""B8 and B10: the tenant budget, and what it does with a request over the limit."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from tests.e2e.product.tenant import Key, Tenant, limit_object

MONTH: dict[str, Any] = {"resets_at": "2026-04-01T00:00:00+00:00", "retry_after_s": 1_521_187}
OVER = "x-comptroller-over-limit"
CODE = "tenant_budget_exceeded"


def _set(tenant: Tenant, monthly: str, **given: Any) -> Any:
    """Set the budget of an organization whose refusals show all figures."""
    scope = {"organizationId": tenant.id}
    tenant.mutate("ruleSet", scope=scope, refusalDetail="ALL")
    return tenant.mutate(
        "tenantBudgetSet",
        "tenantBudget { version }",
        organizationId=tenant.id,
        monthlyBudget=monthly,
        policyVersion="2026-03",
        **given,
    )["tenantBudget"]


def _refused(tenant: Tenant, cap: str, used: str, **given: Any) -> dict[str, Any]:
    figures = {"cap": cap, "used": used, "held": "0.00", "output_tokens_that_fit": 0}
    window = given.pop("window", "calendar_month")
    scope_id = tenant.stack.organization_id
    return limit_object("organization", scope_id, window, **{**MONTH, **figures, **given})


def _steps(tenant: Tenant) -> list[tuple[Any, ...]]:
    record = tenant.last_record()
    return [(each["percent"], each["action"], each.get("model")) for each in record.steps]


def test_b8_everything_of_a_tenant_budget_holds_at_once(tenant: Tenant) -> None:
    key = tenant.key()
    _set(
        tenant,
        "0.10",
        hardStop="0.20",
        dailySoftLimit="0.01",
        allowedModelTiers=["economy", "standard"],
        blockedFeatures=["images"],
        overLimitAction="DOWNGRADE_THEN_FAIL_CLOSED",
        downgradeModel="economy",
    )
    tenant.operate("walletOpen", organizationId=tenant.id, idempotencyKey="open")
    tenant.operate(
        "tenantBudgetSet",
        organizationId=tenant.id,
        monthlyBudget="0.04",
        hardStop="0.06",
        dailySoftLimit="0.01",
        prepaidBalance="0.055",
        allowedModelTiers=["economy", "standard"],
        blockedFeatures=["images"],
        overLimitAction="DOWNGRADE_THEN_FAIL_CLOSED",
        downgradeModel="economy",
        policyVersion="2026-04",
        expectedVersion=1,
        idempotencyKey="set",
    )
    feature = {"x-comptroller-feature": "images"}
    tenant.refuse(key, 403, "model_not_allowed", model="premium")
    tenant.refuse(key, 403, "feature_blocked", model="economy", headers=feature)
    # The daily soft limit is passed at once, and refuses nothing.
    tenant.spend(key, 2, model="standard")
    answer = tenant.spend(key, model="standard")
    assert answer.headers[OVER] == "downgrade=economy"
    # 0.05 of 0.06 and of the balance of 0.055 are spent.
    balance = _refused(
        tenant,
        "0.055",
        "0.05",
        window="lifetime",
        resets_at=None,
        retry_after_s=None,
        waits_for="top_up",
        requested="0.01",
    )
    tenant.refuse(key, 402, "prepaid_balance_required", limit=balance, model="economy")
    shown = tenant.ask_graphql(
        "wallet { balance } tenantBudget { prepaidBalance policyVersion isOperators }"
    )
    assert shown == {
        "wallet": {"balance": "0.005"},
        "tenantBudget": {
            "prepaidBalance": "0.005",
            "policyVersion": "2026-04",
            "isOperators": True,
        },
    }


def test_b10_reject(tenant: Tenant) -> None:
    key = tenant.key()
    _set(tenant, "0.10", overLimitAction="REJECT")
    tenant.spend(key, 2)
    refused = tenant.refuse(key, 402, CODE, limit=_refused(tenant, "0.10", "0.10"))
    assert refused.record.over_limit_action == "reject"
    # A cheaper one does not fit either: nothing is downgraded where nobody asked for it.
    expected = _refused(tenant, "0.10", "0.10", requested="0.01")
    tenant.refuse(key, 402, CODE, limit=expected, model="economy")


def test_b10_downgrade_serves_by_the_cheaper_model_and_says_so(tenant: Tenant) -> None:
    key = tenant.key()
    _set(tenant, "0.10", overLimitAction="DOWNGRADE", downgradeModel="economy")
    assert OVER not in tenant.spend(key, 2).headers
    estimate = tenant.estimate(key)
    assert (estimate["allowed"], estimate["model"], estimate["served_model"]) == (
        True,
        "sim-flat-0.05",
        "sim-flat-0.01",
    )
    assert [(each["percent"], each["action"]) for each in estimate["over_limit_steps"]] == [
        (100, "downgrade")
    ]
    for _ in range(12):
        answer = tenant.spend(key)
        assert answer.headers[OVER] == "downgrade=economy"
        assert answer.headers["x-comptroller-served-model"] == "sim-flat-0.01"
        assert answer.json()["model"] == "sim-flat-0.01"
    record = tenant.last_record()
    assert (record.requested_model, record.model, record.tier, record.over_limit_action) == (
        "sim-flat-0.05",
        "economy",
        "economy",
        "downgrade",
    )
    assert _steps(tenant) == [(100, "downgrade", "economy")]
    assert tenant.stack.ledger_nanos() == 220_000_000


def test_b10_downgrade_then_fail_closed(tenant: Tenant) -> None:
    key = tenant.key()
    _set(
        tenant,
        "0.10",
        hardStop="0.125",
        overLimitAction="DOWNGRADE_THEN_FAIL_CLOSED",
        downgradeModel="economy",
    )
    assert OVER not in tenant.spend(key, 2).headers
    for _ in range(2):
        assert tenant.spend(key).headers[OVER] == "downgrade=economy"
    # 0.12 of 0.125: not even the cheaper model fits. What is refused is what was asked for.
    refused = tenant.refuse(key, 402, CODE, limit=_refused(tenant, "0.125", "0.12"))
    assert refused.record.over_limit_action == "reject"
    assert refused.record.steps == []
    expected = _refused(tenant, "0.125", "0.12", requested="0.01")
    tenant.refuse(key, 402, CODE, limit=expected, model="economy")
    foretold = tenant.estimate(key)
    assert foretold["allowed"] is False
    assert foretold["refusal"]["limit"]["cap"] == "0.125"


def _confirm(tenant: Tenant, key: Key, **asked: Any) -> str:
    limit = {
        "scope": "organization",
        "scope_id": str(tenant.stack.organization_id),
        "resource": "spend",
        "window": "calendar_month",
    }
    refused = tenant.refuse(key, 403, "confirmation_required", limit=limit, **asked)
    token: str = refused.error["confirm_token"]
    return token


def test_b10_confirm_passes_with_a_token_that_works_once_for_this_request(tenant: Tenant) -> None:
    key = tenant.key()
    _set(tenant, "0.10", hardStop="0.20", overLimitAction="CONFIRM")
    assert OVER not in tenant.spend(key, 2).headers
    token = _confirm(tenant, key)
    header = {"x-comptroller-confirm": token}
    second = _confirm(tenant, key, headers=header, content="Another")
    other = tenant.key()
    _confirm(tenant, other, headers=header)
    answer = tenant.spend(key, headers=header)
    assert answer.headers[OVER] == "confirm"
    assert _steps(tenant) == [(100, "confirm", None)]
    assert tenant.last_record().over_limit_action == "confirm"
    _confirm(tenant, key, headers=header)
    both = {"x-comptroller-confirm": f"{token}, {second}"}
    tenant.spend(key, headers=both, content="Another")
    # At the hard stop nothing can be confirmed.
    expected = _refused(tenant, "0.20", "0.20")
    tenant.refuse(key, 402, CODE, limit=expected)


def test_b10_a_confirmation_ends_after_ten_minutes(tenant_at: Callable[[str], Tenant]) -> None:
    tenant = tenant_at("2026-03-14T09:00:00Z")
    key = tenant.key()
    _set(tenant, "0.04", overLimitAction="CONFIRM")
    # Tokens of the first ten minutes of a process end with the eleventh: it may have restarted.
    tenant.wait(1_000)
    error = tenant.ask(key).json()["error"]
    assert error["expires_at"] == "2026-03-14T09:26:40+00:00"
    token = error["confirm_token"]
    tenant.wait(599)
    assert tenant.ask(key, headers={"x-comptroller-confirm": token}).status_code == 200
    token = tenant.ask(key).json()["error"]["confirm_token"]
    tenant.wait(600)
    late = tenant.ask(key, headers={"x-comptroller-confirm": token})
    assert late.json()["error"]["code"] == "confirmation_required"


def test_b10_queue_waits_for_room_and_is_refused_when_its_time_is_up(
    tenant_at: Callable[[str], Tenant],
) -> None:
    tenant = tenant_at("2026-03-31T23:59:00Z")
    key = tenant.key()
    _set(tenant, "0.10", overLimitAction="QUEUE", queueTimeoutSeconds=30)
    tenant.spend(key, 2)
    with ThreadPoolExecutor(2) as threads:
        waiting = threads.submit(tenant.ask, key)
        _until_queued(tenant, waiting)
        tenant.wait(30)
        refused = waiting.result(30)
        assert refused.status_code == 402
        expected = _refused(tenant, "0.10", "0.10", retry_after_s=30)
        assert refused.json()["error"]["limit"] == expected
        record = tenant.last_record()
        assert (record.decision, record.code) == ("refused", CODE)
        assert (record.waited_ns, record.over_limit_action) == (30_000_000_000, "queue,reject")
        # The next waits into the new month, and passes there.
        waiting = threads.submit(tenant.ask, key)
        _until_queued(tenant, waiting)
        tenant.wait(29.999)
        assert not waiting.done()
        tenant.wait(0.001)
        answer = waiting.result(30)
    assert answer.status_code == 200
    assert answer.headers[OVER] == "queue,waited=30000ms"
    record = tenant.last_record()
    assert (record.waited_ns, record.over_limit_action) == (30_000_000_000, "queue")
    assert _steps(tenant) == [(100, "queue", None)]
    assert tenant.stack.ledger_nanos() == 150_000_000


def _until_queued(tenant: Tenant, waiting: Any) -> None:
    from tests.proxy.untouched import wait_until  # noqa: PLC0415

    enforcer = tenant.stack.comptroller.proxy._enforcer
    wait_until(lambda: waiting.done() or len(enforcer._waiting) == 1)
    assert not waiting.done(), waiting.result().text
