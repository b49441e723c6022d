"""A tenant budget is set as a whole or not at all."""

from __future__ import annotations

import json
from uuid import UUID

import pytest

from controlplane.errors import (
    InsufficientBalance,
    InvalidInput,
    NotFound,
    NotPermitted,
    StaleVersion,
)
from controlplane.limits.models import ScopeKind
from controlplane.limits.subjects import Scope
from controlplane.policies.service import set_rule
from controlplane.policies.snapshot import organization_snapshot
from controlplane.tenant_budgets.effects import with_budget
from controlplane.tenant_budgets.models import OverLimitAction, TenantBudget
from controlplane.tenant_budgets.service import (
    NAMES_MAX,
    QUEUE_TIMEOUT_S_MAX,
    Guardrails,
    remove_tenant_budget,
    set_tenant_budget,
)
from controlplane.wallets.queries import balance_limit_id, standing_of
from controlplane.wallets.service import open_wallet, top_up
from tests.controlplane.enforced import Enforced
from tests.controlplane.everything import everything

SEED = {
    "monthly_budget_nanos": 500,
    "hard_stop_nanos": 600,
    "daily_soft_limit_nanos": 35,
    "allowed_model_tiers": ("standard", "economy"),
    "blocked_features": ("bulk_enrichment",),
    "over_limit_action": OverLimitAction.DOWNGRADE_THEN_FAIL_CLOSED,
    "downgrade_model": "small",
    "policy_label": "2026-06-tenant-budget-v1",
}


async def put(work_as, caller, org, wanted, **how):
    async with work_as(caller) as work:
        return await set_tenant_budget(work, org.id, Guardrails(**wanted), **how)


async def snapshot_of(database, org, settings):
    async with database.read() as session:
        return json.loads(await organization_snapshot(session, org.id, settings))


async def test_the_object_becomes_three_limits_and_a_rule(
    work_as, org, database, installation
) -> None:
    await put(work_as, org.admin, org, SEED)
    found = await snapshot_of(database, org, installation.settings)
    month = {"kind": "calendar", "period": "month", "time_zone": "Europe/Berlin"}
    day = {**month, "period": "day"}
    notify = {"percent": 100, "action": "notify"}
    downgrade = {"percent": 100, "action": "downgrade", "model": "small"}
    refuse = {"percent": 100, "action": "refuse", "code": None, "status": None}
    limits = sorted(found["limits"], key=lambda each: each["cap"])
    assert [
        (each["cap"], each["mode"], each["hold"], each["window"], each["steps"]) for each in limits
    ] == [
        (35, "soft", "expected", day, [notify]),
        (500, "soft", "expected", month, [notify, downgrade]),
        (600, "hard", "expected", month, [notify, refuse]),
    ]
    whole = {"kind": "organization", "id": str(org.id)}
    assert {(each["kind"], each["resource"]) for each in limits} == {("budget", "spend")}
    assert all(each["scope"] == whole for each in limits)
    assert found["rules"] == [
        {
            "scope": whole,
            "models": None,
            "tiers": ["economy", "standard"],
            "features_blocked": ["bulk_enrichment"],
        }
    ]
    names = {each["id"] for each in limits}
    await put(work_as, org.admin, org, {**SEED, "monthly_budget_nanos": 1}, expected_version=1)
    again = await snapshot_of(database, org, installation.settings)
    assert {each["id"] for each in again["limits"]} == names


async def test_the_organizations_own_rule_is_narrowed(work_as, org, database, installation) -> None:
    async with work_as(org.admin) as work:
        scope = Scope(ScopeKind.ORGANIZATION, org.id)
        await set_rule(work, org.id, scope, {"models": ["a"]})
        team = Scope(ScopeKind.TEAM, org.team)
        await set_rule(work, org.id, team, {"models": ["b"]})
    await put(work_as, org.admin, org, SEED)
    rules = (await snapshot_of(database, org, installation.settings))["rules"]
    assert [(each["scope"]["kind"], each["models"]) for each in rules] == [
        ("team", ["b"]),
        ("organization", ["a"]),
    ]
    assert rules[1]["tiers"] == ["economy", "standard"]


def test_tiers_of_both_and_features_of_either() -> None:
    place = UUID(int=1)
    scope = {"kind": "organization", "id": str(place)}
    own = {"scope": scope, "models": None, "tiers": ["economy", "x"], "features_blocked": ["a"]}
    budget = TenantBudget(allowed_model_tiers=["economy", "y"], blocked_features=["b"])
    [found] = with_budget([own], budget, place)
    assert (found["tiers"], found["features_blocked"]) == (["economy"], ["a", "b"])
    free = TenantBudget(allowed_model_tiers=None, blocked_features=[])
    assert with_budget([own], free, place) == [own]
    assert with_budget([], None, place) == []


async def test_a_balance_is_opened_and_then_corrected(
    work_as, operator, org, database, installation, clock
) -> None:
    async def balance() -> int:
        async with database.read() as session:
            return (await standing_of(session, org.id)).balance_nanos

    for version, nanos in ((None, 120), (1, 50), (2, 50)):
        wanted = {**SEED, "prepaid_balance_nanos": nanos}
        clock.advance_ns(1_000)
        how = {"expected_version": version, "idempotency_key": f"{version}"}
        await put(work_as, operator, org, wanted, **how)
        assert await balance() == nanos
        # The same call again is the same budget, and takes nothing.
        assert (await put(work_as, operator, org, wanted, **how)).version == (version or 0) + 1
    found = await snapshot_of(database, org, installation.settings)
    wallet = str(balance_limit_id(org.id))
    assert [each["cap"] for each in found["limits"] if each["id"] == wallet] == [50]


async def test_when_one_part_fails_nothing_is_changed(
    work_as, operator, org, database, published
) -> None:
    async with work_as(operator) as work:
        await open_wallet(work, org.id, idempotency_key="1")
        await top_up(work, org.id, amount_nanos=100, reference="R", idempotency_key="2")
    published.clear()
    before = await everything(database)
    wanted = {**SEED, "prepaid_balance_nanos": 10}
    # 95 are held by requests under way; the wallet comes last, after limits and rule.
    with pytest.raises(InsufficientBalance):
        await put(work_as, operator, org, wanted, idempotency_key="k", in_use_nanos=95)
    with pytest.raises(InvalidInput):
        await put(work_as, operator, org, wanted)
    with pytest.raises(NotPermitted):
        await put(work_as, org.admin, org, wanted, idempotency_key="k")
    assert await everything(database) == before
    assert published == []


@pytest.mark.parametrize(
    "wanted",
    [
        {"monthly_budget_nanos": -1},
        {"monthly_budget_nanos": 2**63},
        {"hard_stop_nanos": 499},
        {"hard_stop_nanos": None},
        {"hard_stop_nanos": 2**63},
        {"daily_soft_limit_nanos": -1},
        {"prepaid_balance_nanos": -1},
        {"over_limit_action": OverLimitAction.DOWNGRADE},
        {"downgrade_model": None},
        {"downgrade_model": "é" * 101},
        {"over_limit_action": OverLimitAction.REJECT},
        {"queue_timeout_s": 5},
        {"over_limit_action": OverLimitAction.QUEUE, "downgrade_model": None},
        {
            "over_limit_action": OverLimitAction.QUEUE,
            "downgrade_model": None,
            "queue_timeout_s": QUEUE_TIMEOUT_S_MAX + 1,
        },
        {
            "over_limit_action": OverLimitAction.QUEUE,
            "downgrade_model": None,
            "queue_timeout_s": 0,
        },
        {"allowed_model_tiers": tuple(str(number) for number in range(NAMES_MAX + 1))},
        {"blocked_features": tuple(str(number) for number in range(NAMES_MAX + 1))},
        {"blocked_features": ("",)},
        {"policy_label": ""},
        {"policy_label": "x" * 101},
    ],
)
async def test_what_contradicts_itself_changes_nothing(
    work_as, org, database, published, wanted
) -> None:
    before = await everything(database)
    with pytest.raises(InvalidInput):
        await put(work_as, org.admin, org, {**SEED, **wanted})
    assert await everything(database) == before
    assert published == []


async def test_the_longest_lists_are_what_the_engine_reads(
    work_as, org, database, installation, clock
) -> None:
    names = tuple("x" * 190 + str(number) for number in range(NAMES_MAX))
    wanted = {**SEED, "allowed_model_tiers": names, "blocked_features": names}
    wanted |= {"over_limit_action": OverLimitAction.QUEUE, "downgrade_model": None}
    await put(work_as, org.admin, org, {**wanted, "queue_timeout_s": QUEUE_TIMEOUT_S_MAX})
    await Enforced(database, org.id, installation.settings, clock).load()


async def test_a_budget_is_lifted_and_set_again_as_one_that_never_was(
    work_as, org, database, installation
) -> None:
    await put(work_as, org.admin, org, SEED)
    async with work_as(org.admin) as work:
        with pytest.raises(StaleVersion):
            await remove_tenant_budget(work, org.id, expected_version=2)
    async with work_as(org.admin) as work:
        await remove_tenant_budget(work, org.id, expected_version=1)
    found = await snapshot_of(database, org, installation.settings)
    assert (found["limits"], found["rules"]) == ([], [])
    before = await everything(database)
    with pytest.raises(NotFound):
        async with work_as(org.admin) as work:
            await remove_tenant_budget(work, org.id, expected_version=2)
    with pytest.raises(StaleVersion):
        await put(work_as, org.admin, org, SEED, expected_version=2)
    assert await everything(database) == before
    assert (await put(work_as, org.admin, org, SEED)).version == 3
    with pytest.raises(StaleVersion):
        await put(work_as, org.admin, org, SEED)
