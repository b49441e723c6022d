"""C1 to C3: spend of a minute and an hour, for an organization, a team and a member."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.e2e.product.tenant import Key, Tenant, limit_object
from tests.proxy.untouched import wait_until

TenantAt = Callable[[str], Tenant]
NOON = "2026-03-14T12:00:00Z"
CODE = "spend_circuit_open"
# A service's key in a team sees the team's figures, but not the organization's.
HIDDEN = {"organization"}
BREAKERS = """breakerEvents { nodes {
  windowSeconds state spent threshold at breaker { scope { kind } } } }"""


def _ids(tenant: Tenant) -> dict[str, tuple[str, str, object]]:
    stack = tenant.stack
    return {
        "member": ("memberId", tenant.member_id, stack.member_id),
        "team": ("teamId", tenant.team_id, stack.team_id),
        "organization": ("organizationId", tenant.id, stack.organization_id),
    }


def _key(tenant: Tenant, kind: str) -> Key:
    """Make a key under which no narrower breaker than this is."""
    if kind == "member":
        return tenant.member_key()
    return tenant.key(teamId=tenant.team_id) if kind == "team" else tenant.key()


def _set(tenant: Tenant, kind: str, **thresholds: str | None) -> Any:
    name, id_, _ = _ids(tenant)[kind]
    made = tenant.mutate("breakerSet", "breaker { id version }", scope={name: id_}, **thresholds)
    return made["breaker"]


def _open(
    tenant: Tenant, kind: str, window: str, resets_at: str, retry_after_s: int, **figures: str
) -> dict[str, Any]:
    return limit_object(
        kind,
        _ids(tenant)[kind][2],
        window,
        resets_at=f"{resets_at}+00:00",
        retry_after_s=retry_after_s,
        **({} if kind in HIDDEN else {"held": "0.00", **figures}),
    )


def _refuse(tenant: Tenant, key: Key, limit: dict[str, Any]) -> None:
    retry = (str(limit["retry_after_s"]), "false")
    tenant.refuse(key, 503, CODE, limit=limit, retry=retry)


def _events(tenant: Tenant) -> list[tuple[Any, ...]]:
    """List what breakers told, the oldest first."""
    tenant.stack.ledger()
    nodes = tenant.ask_graphql(BREAKERS)["breakerEvents"]["nodes"]
    return [
        (each["windowSeconds"], each["state"], each["spent"], each["at"]) for each in nodes[::-1]
    ]


@pytest.mark.parametrize("kind", ["member", "team", "organization"])
def test_c3_a_breaker_opens_at_its_threshold_and_closes_by_itself(
    tenant_at: TenantAt, kind: str
) -> None:
    tenant = tenant_at(NOON)
    key = _key(tenant, kind)
    _set(tenant, kind, perMinute="0.10")
    tenant.spend(key)
    tenant.wait(10)
    # It is open from the moment its sum has reached the threshold; what asks is not added.
    tenant.spend(key)
    figures = {"cap": "0.10", "used": "0.10"}
    end = "2026-03-14T12:01:01"
    _refuse(tenant, key, _open(tenant, kind, "rolling_60s", end, 51, **figures))
    tenant.wait(50)
    _refuse(tenant, key, _open(tenant, kind, "rolling_60s", end, 1, **figures))
    tenant.wait(1)
    # Nobody has to ask for that.
    wait_until(lambda: len(_events(tenant)) == 2)
    tenant.wait(1)
    tenant.spend(key)
    _refuse(tenant, key, _open(tenant, kind, "rolling_60s", "2026-03-14T12:01:11", 9, **figures))
    assert _events(tenant) == [
        (60, "OPEN", "0.10", "2026-03-14T12:00:10Z"),
        (60, "CLOSED", "0.05", "2026-03-14T12:01:01Z"),
        (60, "OPEN", "0.10", "2026-03-14T12:01:02Z"),
    ]


def test_c1_the_minute_and_the_hour_are_watched_together(tenant_at: TenantAt) -> None:
    tenant = tenant_at(NOON)
    key = tenant.member_key()
    _set(tenant, "member", perMinute="0.10", perHour="0.15")
    tenant.spend(key, 2)
    end = "2026-03-14T12:01:01"
    minute = {"cap": "0.10", "used": "0.10"}
    _refuse(tenant, key, _open(tenant, "member", "rolling_60s", end, 61, **minute))
    tenant.wait(61)
    tenant.spend(key)
    # The minute has room again, the hour has not: buckets of a minute, the oldest kept whole.
    hour = {"cap": "0.15", "used": "0.15"}
    # What was spent at 12:00:00 is in the one that ends at 12:00:20.
    end = "2026-03-14T13:00:20"
    found = _open(tenant, "member", "rolling_3600s", end, 3_559, **hour)
    _refuse(tenant, key, found)
    tenant.go_to(f"{end}Z", less_ns=1_000_000_000)
    _refuse(tenant, key, {**found, "retry_after_s": 1})
    tenant.go_to(f"{end}Z")
    tenant.spend(key)


FALLBACKS = [
    ({"organization": "0.05"}, "member"),
    ({"team": "0.05"}, "member"),
    ({"organization": "0.05", "member": "0.50"}, "team"),
    ({"organization": "0.50", "team": "0.05"}, "member"),
    ({"organization": "0.50", "team": "0.50", "member": "0.05"}, "member"),
    ({"organization": "0.50", "team": "0.05", "member": "0.50"}, "team"),
    ({"organization": "0.05", "team": "0.50", "member": "0.50"}, "organization"),
]


@pytest.mark.parametrize(("thresholds", "opens"), FALLBACKS)
def test_c2_a_missing_threshold_is_that_of_the_team_else_of_the_organization(
    tenant_at: TenantAt, thresholds: dict[str, str], opens: str
) -> None:
    tenant = tenant_at(NOON)
    key = tenant.member_key()
    for kind, threshold in thresholds.items():
        _set(tenant, kind, perMinute=threshold)
    tenant.spend(key)
    refused = tenant.ask(key)
    assert refused.status_code == 503
    assert refused.json()["error"]["limit"]["scope"] == opens


def test_c3_a_reset_lets_pass_until_as_much_is_spent_again(tenant_at: TenantAt) -> None:
    tenant = tenant_at(NOON)
    key = tenant.member_key()
    breaker = _set(tenant, "member", perMinute="0.10", perHour="1.00")
    tenant.spend(key, 2)
    end = "2026-03-14T12:01:01"
    figures = {"cap": "0.10", "used": "0.10"}
    _refuse(tenant, key, _open(tenant, "member", "rolling_60s", end, 61, **figures))
    tenant.wait(5)
    tenant.mutate(
        "breakerReset",
        breakerId=breaker["id"],
        expectedVersion=breaker["version"],
        reason="The batch was meant.",
    )
    tenant.spend(key, 2)
    # What it was reset by goes on hiding as much until 12:01:06: it closes as the first is gone.
    _refuse(tenant, key, _open(tenant, "member", "rolling_60s", end, 56, **figures))
    states = [(each[1], each[2]) for each in _events(tenant)]
    assert states == [("OPEN", "0.10"), ("CLOSED", "0.00"), ("OPEN", "0.10")]


def test_c4_a_changed_threshold_holds_for_the_next_request(tenant_at: TenantAt) -> None:
    tenant = tenant_at(NOON)
    key = tenant.key()
    made = _set(tenant, "organization", perMinute="0.05")
    tenant.spend(key)
    end = "2026-03-14T12:01:01"
    _refuse(tenant, key, _open(tenant, "organization", "rolling_60s", end, 61))
    made = _set(tenant, "organization", perMinute="0.06", expectedVersion=made["version"])
    tenant.spend(key)
    _refuse(tenant, key, _open(tenant, "organization", "rolling_60s", end, 61))
    _set(tenant, "organization", perMinute=None, expectedVersion=made["version"])
    tenant.spend(key)
