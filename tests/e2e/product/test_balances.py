"""B7: a prepaid balance is checked before routing, and is never negative by our doing."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.e2e.product.tenant import Tenant, limit_object

WALLET = """wallet { balance held available
  entries { nodes { kind amount balanceAfter reference } } }"""


@pytest.fixture
def prepaid(tenant: Tenant) -> Tenant:
    """An organization with an empty wallet, whose refusals show all figures."""
    tenant.operate("walletOpen", organizationId=tenant.id, idempotencyKey="open")
    scope = {"organizationId": tenant.id}
    tenant.mutate("ruleSet", scope=scope, refusalDetail="ALL")
    return tenant


def _top_up(tenant: Tenant, amount: str, key: str) -> Any:
    return tenant.operate(
        "walletTopUp",
        "walletEntry { id balanceAfter }",
        organizationId=tenant.id,
        amount=amount,
        reference=f"invoice {key}",
        idempotencyKey=key,
    )["walletEntry"]


def _refused(tenant: Tenant, cap: str, used: str) -> dict[str, Any]:
    return limit_object(
        "organization",
        tenant.stack.organization_id,
        "lifetime",
        waits_for="top_up",
        cap=cap,
        used=used,
        held="0.00",
        output_tokens_that_fit=0,
    )


def _wallet(tenant: Tenant) -> Any:
    # What is spent reaches the wallet with the batch that books it.
    tenant.stack.ledger()
    return tenant.ask_graphql(WALLET)["wallet"]


@pytest.mark.parametrize(("paid", "passing"), [("0.05", 1), ("0.09", 1), ("0.10", 2), ("0.99", 19)])
def test_b7_as_many_requests_pass_as_the_balance_pays_for(
    prepaid: Tenant, paid: str, passing: int
) -> None:
    tenant, key = prepaid, prepaid.key()
    code = "prepaid_balance_required"
    tenant.refuse(key, 402, code, limit=_refused(tenant, "0.00", "0.00"))
    _top_up(tenant, paid, "first")
    tenant.spend(key, passing)
    used = f"{passing * 5 / 100:.2f}"
    tenant.refuse(key, 402, code, limit=_refused(tenant, paid, used))
    left = f"{(round(float(paid) * 100) - passing * 5) / 100:.2f}"
    wallet = _wallet(tenant)
    assert (wallet["balance"], wallet["held"], wallet["available"]) == (left, "0.00", left)


def test_b7_the_balance_is_the_sum_of_its_entries_and_a_repeated_one_counts_once(
    prepaid: Tenant,
) -> None:
    tenant, key = prepaid, prepaid.key()
    first = _top_up(tenant, "0.10", "first")
    assert _top_up(tenant, "0.10", "first") == first
    tenant.spend(key, 2)
    code = "prepaid_balance_required"
    tenant.refuse(key, 402, code, limit=_refused(tenant, "0.10", "0.10"))
    request = tenant.ask_graphql("requests { nodes { id code } }")["requests"]["nodes"][-1]
    tenant.operate("walletRefund", requestId=request["id"], amount="0.05", idempotencyKey="back")
    tenant.operate(
        "walletAdjust",
        organizationId=tenant.id,
        amount="-0.01",
        note="rounding",
        idempotencyKey="less",
    )
    # 0.04 is left: less than a request costs.
    tenant.refuse(key, 402, code, limit=_refused(tenant, "0.14", "0.10"))
    _top_up(tenant, "0.01", "second")
    tenant.spend(key)
    wallet = _wallet(tenant)
    assert wallet["balance"] == "0.00"
    entries = [(each["kind"], each["amount"]) for each in wallet["entries"]["nodes"]]
    assert Counter(entries) == {
        ("TOP_UP", "0.10"): 1,
        ("USAGE", "-0.05"): 3,
        ("REFUND", "0.05"): 1,
        ("ADJUSTMENT", "-0.01"): 1,
        ("TOP_UP", "0.01"): 1,
    }


def test_b7_many_at_once_take_no_more_than_there_is(prepaid: Tenant) -> None:
    tenant, key = prepaid, prepaid.key()
    _top_up(tenant, "0.34", "first")
    content = "[[sim latency_ms=50]] Hello"
    with ThreadPoolExecutor(20) as threads:
        asked = [threads.submit(tenant.ask, key, content=content) for _ in range(20)]
        statuses = Counter(each.result().status_code for each in asked)
    assert statuses == {200: 6, 402: 14}
    assert _wallet(tenant)["balance"] == "0.04"
    assert tenant.provider.bill()["requests"] == 6
