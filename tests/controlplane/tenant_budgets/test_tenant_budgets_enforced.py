"""What each action of a tenant budget does at the monthly budget and at the hard stop."""

from __future__ import annotations

import pytest

from controlplane.tenant_budgets.models import OverLimitAction
from controlplane.tenant_budgets.service import Guardrails, set_tenant_budget
from core_rs import Admission, Diversion, Refusal, Waiting
from tests.controlplane.enforced import Enforced


@pytest.fixture
def enforced(database, org, installation, clock) -> Enforced:
    return Enforced(database, org.id, installation.settings, clock)


async def put(work_as, org, enforced: Enforced, **wanted) -> None:
    values = {"monthly_budget_nanos": 100, "policy_label": "v1", **wanted}
    async with work_as(org.admin) as work:
        await set_tenant_budget(work, org.id, Guardrails(**values))
    await enforced.load()


def refused(enforced: Enforced, cost_nanos: int, **wanted) -> tuple[str, int | None, int | None]:
    found = enforced.ask(cost_nanos, **wanted)
    assert isinstance(found, Refusal), found
    return found.code, found.cap, found.used


async def test_reject(work_as, org, enforced) -> None:
    await put(work_as, org, enforced, hard_stop_nanos=120)
    enforced.spend(100)
    assert refused(enforced, 1) == ("tenant_budget_exceeded", 100, 100)


@pytest.mark.parametrize("hard_stop_nanos", [None, 120])
async def test_downgrade(work_as, org, enforced, hard_stop_nanos) -> None:
    """With a hard stop it fails closed there; without one it goes on."""
    action = (
        OverLimitAction.DOWNGRADE
        if hard_stop_nanos is None
        else OverLimitAction.DOWNGRADE_THEN_FAIL_CLOSED
    )
    await put(
        work_as,
        org,
        enforced,
        over_limit_action=action,
        downgrade_model="small",
        hard_stop_nanos=hard_stop_nanos,
    )
    enforced.spend(90)
    found = enforced.ask(11)
    assert isinstance(found, Diversion)
    assert (found.action, found.model, found.percent) == ("downgrade", "small", 100)
    enforced.spend(10)
    enforced.spend(20, model="small")
    if hard_stop_nanos is None:
        enforced.spend(1_000, model="small")
    else:
        for model in ("small", "big"):
            wanted = {"model": model, "taken": [(found.limit_id, 2)]}
            assert refused(enforced, 1, **wanted) == ("tenant_budget_exceeded", 120, 120)


async def test_confirm(work_as, org, enforced) -> None:
    await put(
        work_as,
        org,
        enforced,
        over_limit_action=OverLimitAction.CONFIRM,
        hard_stop_nanos=120,
    )
    enforced.spend(100)
    found = enforced.ask(1)
    assert isinstance(found, Diversion)
    assert found.action == "confirm"
    confirmed = {"taken": [(found.limit_id, found.step + 1)]}
    enforced.spend(20, **confirmed)
    assert refused(enforced, 1, **confirmed) == ("tenant_budget_exceeded", 120, 120)


async def test_queue(work_as, org, enforced) -> None:
    await put(work_as, org, enforced, over_limit_action=OverLimitAction.QUEUE, queue_timeout_s=7)
    enforced.spend(100)
    found = enforced.ask(1, may_wait=True)
    assert isinstance(found, Waiting)
    assert (found.is_queued, found.timeout_ns) == (True, 7 * 10**9)


async def test_a_soft_day_refuses_nothing_and_is_told_once(work_as, org, enforced) -> None:
    await put(work_as, org, enforced, daily_soft_limit_nanos=10)
    assert enforced.spend(9).crossed == []
    [crossed] = enforced.spend(2).crossed
    assert (crossed[2], crossed[4], crossed[5]) == (100, 11, 10)
    assert enforced.spend(5).crossed == []
    assert isinstance(enforced.ask(50), Admission)


async def test_tiers_and_features(work_as, org, enforced) -> None:
    await put(work_as, org, enforced, allowed_model_tiers=("economy",), blocked_features=("bulk",))
    key = enforced._key.key

    def why(**wanted) -> str | None:
        values = {
            "model": "m",
            "provider": "p",
            "endpoint": "/v1/chat/completions",
            "request_class": "interactive",
            **wanted,
        }
        found = enforced.engine.refused_by_rule(key, **values)
        return None if found is None else found[0]

    assert why(tier="economy") is None
    assert why(tier="premium") == "model_not_allowed"
    assert why() == "model_not_allowed"
    assert why(tier="economy", feature="bulk") == "feature_blocked"
    assert why(tier="economy", feature="other") is None
