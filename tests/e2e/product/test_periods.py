"""B3 and K2: periods end to the second, in every time zone, and money is there again by itself."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

import pytest

from controlplane.money import parse_money
from tests.e2e.product.tenant import Tenant, limit_object

FIGURES = {"cap": "0.09", "used": "0.05", "held": "0.00", "output_tokens_that_fit": 0}
TenantAt = Callable[[str], Tenant]


def _every(days: int, anchor: str) -> dict[str, Any]:
    return {"everyDays": {"days": days, "anchor": anchor}}


# Name, window as asked for, time zone, first instant of a period, first of the next, its name.
PERIODS = [
    ("day", {"period": "DAY"}, "UTC", "2026-03-14T00:00:00", "2026-03-15T00:00:00"),
    ("a day of 23 h", {"period": "DAY"}, "Europe/Berlin", "2026-03-28T23:00:00", "2026-03-29T22:00:00"),
    ("a day of 25 h", {"period": "DAY"}, "Europe/Berlin", "2026-10-24T22:00:00", "2026-10-25T23:00:00"),
    ("a day without midnight", {"period": "DAY"}, "America/Santiago", "2026-09-06T04:00:00", "2026-09-07T03:00:00"),
    ("a zone of 45 min", {"period": "DAY"}, "Asia/Kathmandu", "2026-03-13T18:15:00", "2026-03-14T18:15:00"),
    ("week", {"period": "WEEK"}, "UTC", "2026-03-09T00:00:00", "2026-03-16T00:00:00"),
    ("a week of 167 h", {"period": "WEEK"}, "Europe/Berlin", "2026-03-22T23:00:00", "2026-03-29T22:00:00"),
    ("month", {"period": "MONTH"}, "UTC", "2026-02-01T00:00:00", "2026-03-01T00:00:00"),
    ("a leap February", {"period": "MONTH"}, "Asia/Taipei", "2028-01-31T16:00:00", "2028-02-29T16:00:00"),
    ("every 10 days", _every(10, "2026-03-01"), "UTC", "2026-03-11T00:00:00", "2026-03-21T00:00:00"),
    ("every 14 days, from later on", _every(14, "2026-06-01"), "America/New_York", "2026-03-09T04:00:00", "2026-03-23T04:00:00"),
]  # fmt: skip
NAMES = {"DAY": "calendar_day", "WEEK": "calendar_week", "MONTH": "calendar_month"}


@pytest.mark.parametrize(
    ("window", "zone", "start", "end"),
    [each[1:] for each in PERIODS],
    ids=[each[0] for each in PERIODS],
)
def test_b3_a_budget_is_there_again_at_the_first_instant_of_the_next_period(
    tenant_at: TenantAt, window: dict[str, Any], zone: str, start: str, end: str
) -> None:
    tenant = tenant_at(f"{start}Z")
    key = tenant.key()
    tenant.budget({"keyId": key.id}, "0.09", timezone=zone, **window)
    tenant.spend(key)

    def refuse(retry_after_s: int) -> None:
        expected = limit_object(
            "key",
            key.uuid,
            NAMES.get(window.get("period", ""), "days"),
            resets_at=f"{end}+00:00",
            retry_after_s=retry_after_s,
            **FIGURES,
        )
        tenant.refuse(key, 402, "key_budget_exceeded", limit=expected)

    refuse(_seconds(start, end))
    tenant.go_to(f"{end}Z", less_ns=1_000_000_000)
    refuse(1)
    tenant.go_to(f"{end}Z", less_ns=2)
    refuse(1)
    tenant.go_to(f"{end}Z")
    tenant.spend(key)
    assert tenant.stack.ledger_nanos() == parse_money("0.10")


def _seconds(start: str, end: str) -> int:
    return int((datetime.fromisoformat(end) - datetime.fromisoformat(start)).total_seconds())


def test_b3_a_budget_for_life_is_never_there_again(tenant_at: TenantAt) -> None:
    tenant = tenant_at("2026-03-14T09:00:00Z")
    key = tenant.key()
    tenant.budget({"keyId": key.id}, "0.09", lifetime={})
    tenant.spend(key)
    expected = limit_object("key", key.uuid, "lifetime", waits_for="never", **FIGURES)
    for _ in range(3):
        tenant.refuse(key, 402, "key_budget_exceeded", limit=expected)
        tenant.wait(400 * 86_400)


def test_b3_a_changed_time_zone_counts_from_the_old_boundary_on(tenant_at: TenantAt) -> None:
    tenant = tenant_at("2026-03-14T12:00:00Z")
    key = tenant.key()
    budget = tenant.budget({"keyId": key.id}, "0.09", period="DAY", timezone="UTC")
    tenant.spend(key)
    changed = {"limit": "0.09", "period": "DAY", "timezone": "Asia/Tokyo", "expectedVersion": 1}
    tenant.mutate("budgetUpsert", budgetId=budget, **changed)

    def refuse(end: str, retry_after_s: int) -> None:
        expected = limit_object(
            "key",
            key.uuid,
            "calendar_day",
            resets_at=end,
            retry_after_s=retry_after_s,
            **FIGURES,
        )
        tenant.refuse(key, 402, "key_budget_exceeded", limit=expected)

    # Tokyo's day begins at 15:00 already: the change must not let it spend twice.
    tenant.go_to("2026-03-14T15:00:00Z")
    refuse("2026-03-15T00:00:00+00:00", 9 * 3_600)
    tenant.go_to("2026-03-15T00:00:00Z")
    tenant.spend(key)
    refuse("2026-03-15T15:00:00+00:00", 15 * 3_600)
    tenant.go_to("2026-03-15T15:00:00Z")
    tenant.spend(key)


def test_k2_three_windows_of_one_key_at_once_each_blocks_and_frees_by_itself(
    tenant_at: TenantAt,
) -> None:
    # A Tuesday; the month ends in the next week.
    tenant = tenant_at("2026-03-24T10:00:00Z")
    key = tenant.key()
    caps = {"DAY": "0.10", "WEEK": "0.15", "MONTH": "0.25"}
    for period, cap in caps.items():
        tenant.budget({"keyId": key.id}, cap, period=period)
        tenant.wait(1)
    tenant.go_to("2026-03-24T11:00:00Z")

    def refuse(period: str, day: str, retry_after_s: int) -> None:
        expected = limit_object(
            "key",
            key.uuid,
            NAMES[period],
            resets_at=f"2026-{day}T00:00:00+00:00",
            retry_after_s=retry_after_s,
            cap=caps[period],
            used=caps[period],
            held="0.00",
            output_tokens_that_fit=0,
        )
        tenant.refuse(key, 402, "key_budget_exceeded", limit=expected)

    day_s = 86_400
    tenant.spend(key, 2)
    refuse("DAY", "03-25", 13 * 3_600)
    tenant.go_to("2026-03-25T00:00:00Z")
    tenant.spend(key)
    refuse("WEEK", "03-30", 5 * day_s)
    tenant.go_to("2026-03-30T00:00:00Z")
    tenant.spend(key, 2)
    # The day is named, since it was set first; what is told is when the last of them frees.
    refuse("DAY", "04-01", 2 * day_s)
    tenant.go_to("2026-03-31T00:00:00Z")
    refuse("MONTH", "04-01", day_s)
    tenant.go_to("2026-04-01T00:00:00Z")
    tenant.spend(key)
    refuse("WEEK", "04-06", 5 * day_s)
    assert _settled(tenant) == {"DAY": "0.05", "WEEK": "0.15", "MONTH": "0.05"}


def _settled(tenant: Tenant) -> dict[str, str]:
    found = tenant.ask_graphql("budgets { nodes { period state { settled } } }")
    return {each["period"]: each["state"]["settled"] for each in found["budgets"]["nodes"]}
