"""B1, B2, B4 and K5: nested budgets, what they do at their caps, and pools of several keys."""

from __future__ import annotations

from typing import Any

import pytest

from controlplane.limits.labels import label_id, member_in_team_label
from controlplane.limits.models import ScopeKind
from controlplane.money import parse_money
from tests.e2e.product.tenant import Key, Tenant, limit_object, uuid_of

# The shared clock stands at 2026-03-14T09:26:53.5Z.
MONTH: dict[str, Any] = {"resets_at": "2026-04-01T00:00:00+00:00", "retry_after_s": 1_521_187}
NESTED = ("key", "member_in_team", "member", "team", "organization")
# The owner of a member's key sees figures of its own scopes alone.
OWN = NESTED[:3]
FIGURES = {"cap": "0.09", "used": "0.05", "held": "0.00", "output_tokens_that_fit": 0}


def _scopes(tenant: Tenant, key: Key) -> dict[str, tuple[dict[str, Any], object]]:
    stack = tenant.stack
    pair = {"memberId": tenant.member_id, "teamId": tenant.team_id}
    pair_id = label_id(
        ScopeKind.MEMBER_IN_TEAM, member_in_team_label(stack.member_id, stack.team_id)
    )
    return {
        "key": ({"keyId": key.id}, key.uuid),
        "member_in_team": ({"memberInTeam": pair}, pair_id),
        "member": ({"memberId": tenant.member_id}, stack.member_id),
        "team": ({"teamId": tenant.team_id}, stack.team_id),
        "organization": ({"organizationId": tenant.id}, stack.organization_id),
    }


def _code(kind: str) -> str:
    return "tenant_budget_exceeded" if kind == "organization" else f"{kind}_budget_exceeded"


@pytest.mark.parametrize("tightest", NESTED)
def test_b1_the_most_restrictive_of_nested_budgets_wins(tenant: Tenant, tightest: str) -> None:
    key = tenant.member_key()
    scopes = _scopes(tenant, key)
    for kind, (scope, _) in scopes.items():
        tenant.budget(scope, "0.09" if kind == tightest else "100.00")
    tenant.spend(key)
    figures = FIGURES if tightest in OWN else {}
    expected = limit_object(tightest, scopes[tightest][1], "calendar_month", **MONTH, **figures)
    tenant.refuse(key, 402, _code(tightest), limit=expected)


@pytest.mark.parametrize("wide", NESTED[1:])
def test_b1_of_several_that_have_no_room_the_narrowest_is_named(tenant: Tenant, wide: str) -> None:
    key = tenant.member_key()
    scopes = _scopes(tenant, key)
    for kind in ("key", wide):
        tenant.budget(scopes[kind][0], "0.09")
    tenant.spend(key)
    expected = limit_object("key", key.uuid, "calendar_month", **MONTH, **FIGURES)
    tenant.refuse(key, 402, "key_budget_exceeded", limit=expected)


@pytest.mark.parametrize(
    ("mode", "steps", "passes"),
    [
        ("HARD", [], False),
        ("HARD", [{"percent": 50, "action": "NOTIFY"}], False),
        ("SOFT", [{"percent": 100, "action": "NOTIFY"}], True),
        ("SHADOW", [], True),
    ],
    ids=["hard", "hard with a notice", "soft", "shadow"],
)
def test_b2_hard_refuses_where_soft_and_shadow_let_pass(
    tenant: Tenant, mode: str, steps: list[dict[str, Any]], passes: bool
) -> None:
    key = tenant.key()
    tenant.budget({"keyId": key.id}, "0.10", enforcement=mode, steps=steps)
    tenant.spend(key, 2)
    if passes:
        tenant.spend(key)
        assert tenant.stack.ledger_nanos() == parse_money("0.15")
        return
    figures = {"cap": "0.10", "used": "0.10", "held": "0.00", "output_tokens_that_fit": 0}
    expected = limit_object("key", key.uuid, "calendar_month", **MONTH, **figures)
    tenant.refuse(key, 402, "key_budget_exceeded", limit=expected)


def test_b2_while_a_soft_limit_is_passed_its_notice_is_repeated_after_each_cooldown(
    tenant_at: Any,
) -> None:
    tenant: Tenant = tenant_at("2026-03-14T09:00:00Z")
    key = tenant.key()
    tenant.budget(
        {"keyId": key.id},
        "0.10",
        enforcement="SOFT",
        steps=[{"percent": 100, "action": "NOTIFY"}],
        cooldownSeconds=600,
    )
    told = []
    for _ in range(6):
        tenant.spend(key)
        told.append(len(_crossings(tenant)))
        tenant.wait(300)
    # 0.05 is below; 0.10 at 9:05, then at the first request that is ten minutes later.
    assert told == [0, 1, 1, 2, 2, 3]
    assert [each["settled"] for each in _crossings(tenant)] == ["0.30", "0.20", "0.10"]
    assert tenant.stack.ledger_nanos() == parse_money("0.30")


def _crossings(tenant: Tenant) -> list[dict[str, Any]]:
    tenant.stack.ledger()
    found = tenant.ask_graphql("thresholdCrossings { nodes { percent settled cap at } }")
    nodes: list[dict[str, Any]] = found["thresholdCrossings"]["nodes"]
    return nodes


@pytest.mark.parametrize("keys", [1, 2, 3])
def test_b4_and_k5_keys_draw_on_their_shared_pools(tenant: Tenant, keys: int) -> None:
    wide, narrow = (_pool(tenant, name) for name in ("wide", "narrow"))
    tenant.budget({"poolId": wide}, "10.00")
    tenant.budget({"poolId": narrow}, "0.19")
    drawing = [tenant.key(poolIds=[wide, narrow]) for _ in range(keys)]
    apart = tenant.key(poolIds=[wide])
    for number in range(3):
        tenant.spend(drawing[number % keys])
    # The pool's figures are others' too: a key's owner is told only that there is no room.
    expected = limit_object("pool", uuid_of(narrow), "calendar_month", **MONTH)
    for key in drawing:
        tenant.refuse(key, 402, "pool_budget_exceeded", limit=expected)
    tenant.spend(apart)
    states = {each["id"]: each["budgets"][0]["state"]["settled"] for each in _pools(tenant)}
    # Each pool is charged in full.
    assert states == {wide: "0.20", narrow: "0.15"}


def test_k5_a_key_that_leaves_a_pool_has_its_other_limits_alone(tenant: Tenant) -> None:
    pool = _pool(tenant, "pool")
    tenant.budget({"poolId": pool}, "0.05")
    key = tenant.key(poolIds=[pool])
    tenant.spend(key)
    expected = limit_object("pool", uuid_of(pool), "calendar_month", **MONTH)
    tenant.refuse(key, 402, "pool_budget_exceeded", limit=expected)
    tenant.mutate("virtualKeyUpdate", keyId=key.id, poolIds=[], expectedVersion=1)
    tenant.spend(key)
    [state] = _pools(tenant)
    assert state["budgets"][0]["state"]["settled"] == "0.05"


def _pool(tenant: Tenant, name: str) -> str:
    made = tenant.mutate("poolCreate", "pool { id }", organizationId=tenant.id, name=name)
    found: str = made["pool"]["id"]
    return found


def _pools(tenant: Tenant) -> list[dict[str, Any]]:
    found = tenant.ask_graphql("pools { nodes { id budgets { state { settled held } } } }")
    nodes: list[dict[str, Any]] = found["pools"]["nodes"]
    return nodes
