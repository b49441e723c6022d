"""B13: an organization in euros is charged by rate, markup and fee, exact to the nano unit."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from math import ceil
from typing import Any

import pytest

from controlplane.money import format_money, parse_money
from tests.e2e.product.tenant import Tenant, limit_object

TenantAt = Callable[[str], Tenant]
NOON = "2026-03-14T12:00:00Z"
COST_NANOS = 50_000_000
MONTH: dict[str, Any] = {"resets_at": "2026-04-01T00:00:00+00:00", "retry_after_s": 1_512_000}


def _in_euros(tenant: Tenant) -> None:
    tenant.operate(
        "organizationSetCurrency", organizationId=tenant.id, currency="EUR", expectedVersion=1
    )


def _plan(tenant: Tenant, markup_ppm: int, fee: str) -> None:
    fees = [{"currency": "EUR", "amount": fee}]
    given = {"name": "plan", "markupPpm": markup_ppm, "fees": fees}
    plan = tenant.operate("planCreate", "plan { id }", **given)["plan"]["id"]
    version = tenant.ask_graphql("version")["version"]
    tenant.operate(
        "organizationSetPlan", organizationId=tenant.id, planId=plan, expectedVersion=version
    )


def _charge(cost_nanos: int, rate: str, markup_ppm: int = 0, fee: str = "0") -> int:
    """Compute a charge in fractions, rounded up once."""
    marked_up = Fraction(rate) * Fraction(1_000_000 + markup_ppm, 1_000_000)
    return ceil(cost_nanos * marked_up) + parse_money(fee)


CHARGES = [
    ("1", 0, "0", 50_000_000),
    ("0.9215", 0, "0", 46_075_000),
    ("0.9215", 150_000, "0", 52_986_250),
    ("0.9215", 150_000, "0.001", 53_986_250),
    ("0.921512345678", 150_000, "0.001", 53_986_960),
    ("0.000000000001", 0, "0", 1),
    ("31.07", 10_000_000, "2.50", 19_588_500_000),
]


@pytest.mark.parametrize(("rate", "markup_ppm", "fee", "charge_nanos"), CHARGES)
def test_b13_cost_and_charge_are_booked_shown_and_limited_exactly(
    tenant_at: TenantAt, rate: str, markup_ppm: int, fee: str, charge_nanos: int
) -> None:
    tenant = tenant_at(NOON)
    assert _charge(COST_NANOS, rate, markup_ppm, fee) == charge_nanos
    _in_euros(tenant)
    tenant.operate("exchangeRateSet", currency="EUR", rate=rate)
    _plan(tenant, markup_ppm, fee)
    key = tenant.key()
    charge, cap = format_money(charge_nanos), format_money(2 * charge_nanos)
    tenant.budget({"keyId": key.id}, cap)
    estimate = tenant.estimate(key)
    assert (estimate["cost_max"], estimate["currency"]) == (charge, "EUR")
    answer = tenant.spend(key)
    assert answer.headers["x-comptroller-limit-remaining"] == charge
    tenant.spend(key)
    expected = limit_object(
        "key",
        key.uuid,
        "calendar_month",
        requested=charge,
        currency="EUR",
        cap=cap,
        used=cap,
        held="0.00",
        output_tokens_that_fit=0,
        **MONTH,
    )
    tenant.refuse(key, 402, "key_budget_exceeded", limit=expected)
    booked = [(each.cost_nanos, each.charge_nanos) for each in tenant.stack.ledger()]
    assert booked == [(COST_NANOS, charge_nanos)] * 2
    nodes = "nodes { cost charge currency }"
    shown = tenant.ask_graphql(f"requests {{ {nodes} }}")["requests"]["nodes"]
    assert shown[1:] == [{"cost": "0.05", "charge": charge, "currency": "EUR"}] * 2
    assert tenant.provider.bill()["total_nanos"] == 2 * COST_NANOS


def test_b13_without_a_rate_nothing_is_priced_and_nothing_passes(tenant_at: TenantAt) -> None:
    tenant = tenant_at(NOON)
    _in_euros(tenant)
    key = tenant.key()
    tenant.refuse(key, 403, "model_not_priced")
    tenant.operate("exchangeRateSet", currency="EUR", rate="0.9215")
    tenant.spend(key)
    assert tenant.stack.ledger_nanos() == 46_075_000


def test_b13_the_rate_is_that_of_the_instant_of_admission(tenant_at: TenantAt) -> None:
    tenant = tenant_at(NOON)
    _in_euros(tenant)
    tenant.operate("exchangeRateSet", currency="EUR", rate="0.90")
    later = {"rate": "0.80", "from": "2026-03-15T00:00:00Z"}
    tenant.operate("exchangeRateSet", currency="EUR", expectedVersion=1, **later)
    key = tenant.key()
    tenant.spend(key)
    tenant.go_to("2026-03-15T00:00:00Z", less_ns=1_000)
    tenant.spend(key)
    tenant.go_to("2026-03-15T00:00:00Z")
    tenant.spend(key)
    charges = [each.charge_nanos for each in tenant.stack.records()]
    assert charges == [45_000_000, 45_000_000, 40_000_000]


def test_b13_what_costs_nothing_is_charged_no_fee(tenant_at: TenantAt) -> None:
    tenant = tenant_at(NOON)
    _in_euros(tenant)
    tenant.operate("exchangeRateSet", currency="EUR", rate="0.9215")
    _plan(tenant, 0, "0.001")
    key = tenant.key()
    failed = tenant.ask(key, content="[[sim fault=status status=500]] Hello")
    assert failed.status_code == 502
    record = tenant.last_record()
    assert (record.decision, record.cost_nanos, record.charge_nanos) == ("failed", 0, 0)
    assert tenant.stack.ledger_nanos() == 0
    assert tenant.stack.open_reservations() == 0
