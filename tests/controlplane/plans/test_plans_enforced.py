"""Plans as the engine enforces them: a change holds for the next request and keeps what was used."""

from __future__ import annotations

import pytest

from controlplane.authz import SYSTEM
from controlplane.exchange.service import set_exchange_rate
from controlplane.plans.service import create_plan, set_plan, update_plan
from controlplane.tenancy.service import create_organization
from core_rs import Admission, EngineError, Refusal
from tests.controlplane.enforced import Enforced

DAY_NS = 86_400 * 10**9


@pytest.fixture
def enforced(database, org, installation, clock) -> Enforced:
    return Enforced(database, org.id, installation.settings, clock)


async def put_on(work_as, operator, org, wanted, version=1):
    async with work_as(operator) as work:
        plan = await create_plan(work, wanted)
        await set_plan(work, org.id, plan.id, expected_version=version)
    return plan


def passing(enforced: Enforced, at_most: int = 50) -> int:
    """Count the requests that pass until one does not."""
    count = 0
    while count < at_most and isinstance(enforced.ask(), Admission):
        enforced.settle(1)
        count += 1
    return count


async def test_a_daily_quota_is_full_at_its_figure_and_empty_at_midnight_of_utc(
    work_as, operator, org, enforced, clock
) -> None:
    await put_on(work_as, operator, org, {"name": "a", "requests_per_day": 3})
    await enforced.load()
    assert passing(enforced) == 3
    refusal = enforced.ask()
    assert isinstance(refusal, Refusal)
    assert (refusal.status, refusal.code) == (429, "plan_quota_exceeded")
    assert (refusal.cap, refusal.used, refusal.window) == (3, 3, "calendar_day")
    left_ns = DAY_NS - clock.wall_ns() % DAY_NS
    assert refusal.frees_at_wall_ns == clock.wall_ns() + left_ns
    clock.advance_ns(left_ns - 1)
    assert passing(enforced) == 0
    clock.advance_ns(1)
    assert passing(enforced) == 3


async def test_another_plan_keeps_what_was_used_in_the_period(
    work_as, operator, org, enforced
) -> None:
    await put_on(work_as, operator, org, {"name": "a", "requests_per_month": 4})
    await enforced.load()
    assert passing(enforced) == 4
    bigger = {"name": "b", "requests_per_month": 6}
    plan = await put_on(work_as, operator, org, bigger, version=2)
    await enforced.load()
    assert passing(enforced) == 2
    async with work_as(operator) as work:
        await update_plan(work, plan.id, {"requests_per_month": 5}, expected_version=1)
    await enforced.load()
    refusal = enforced.ask()
    assert isinstance(refusal, Refusal)
    assert (refusal.cap, refusal.used) == (5, 6)
    # Neither does it help to leave the plan and come back.
    for plan_id, version in ((None, 3), (plan.id, 4)):
        async with work_as(operator) as work:
            await set_plan(work, org.id, plan_id, expected_version=version)
        await enforced.load()
    assert passing(enforced) == 0


async def test_a_minute_is_that_of_all_keys_and_moves(
    work_as, operator, org, enforced, clock
) -> None:
    await put_on(work_as, operator, org, {"name": "a", "requests_per_minute": 2})
    await enforced.load()
    assert passing(enforced) == 2
    refusal = enforced.ask()
    assert isinstance(refusal, Refusal)
    assert (refusal.code, refusal.scope_kind) == ("rate_limit_exceeded", "organization")
    clock.advance_ns(61 * 10**9)
    assert passing(enforced) == 2


async def test_markup_fee_and_rate_make_the_charge(
    work_as, operator, database, installation, clock
) -> None:
    async with work_as(SYSTEM) as work:
        row = await create_organization(work, slug="euro", name="Euro", currency="EUR")
    enforced = Enforced(database, row.id, installation.settings, clock)
    await enforced.load()
    # Without a rate nothing can be charged, and so nothing passes.
    with pytest.raises(EngineError) as error:
        enforced.ask(100)
    assert error.value.code == "no_exchange_rate"
    async with work_as(operator) as work:
        await set_exchange_rate(work, currency="EUR", rate="0.5")
    plan = await put_on(
        work_as, operator, row, {"name": "a", "markup_ppm": 150_000, "fees": {"EUR": 7}}
    )
    await enforced.load()
    settled = enforced.spend(101)
    # 101 at 0.5 and 15 % more are 58.075, rounded up, and the fee.
    assert (settled.cost_nanos, settled.spend_nanos) == (101, 66)
    async with work_as(operator) as work:
        await update_plan(work, plan.id, {"markup_ppm": 0}, expected_version=1)
    await enforced.load()
    assert enforced.spend(101).spend_nanos == 58
