"""Plans: markup, fees and quotas of the organizations on them."""

from __future__ import annotations

import json

import pytest
from sqlalchemy import select

from controlplane.audit.models import AdminEvent
from controlplane.authz import SYSTEM
from controlplane.errors import (
    Conflict,
    InvalidInput,
    LimitExceeded,
    NotFound,
    NotPermitted,
    StaleVersion,
)
from controlplane.events import OrganizationChanged
from controlplane.plans import service
from controlplane.plans.models import PLANS_MAX, Plan
from controlplane.plans.service import (
    MARKUP_PPM_MAX,
    REQUESTS_MAX,
    archive_plan,
    create_plan,
    set_plan,
    update_plan,
)
from controlplane.policies.snapshot import organization_snapshot
from controlplane.tenancy.service import create_organization
from tests.controlplane.everything import everything

FULL = {
    "name": "Starter",
    "markup_ppm": 150_000,
    "fees": {"USD": 1_000_000, "EUR": 900_000},
    "requests_per_month": 10_000,
    "requests_per_day": 500,
    "requests_per_minute": 60,
}


async def snapshot_of(database, organization_id, settings):
    async with database.read() as session:
        return json.loads(await organization_snapshot(session, organization_id, settings))


async def put_on(work_as, operator, org, wanted, expected_version=1):
    async with work_as(operator) as work:
        plan = await create_plan(work, wanted)
        await set_plan(work, org.id, plan.id, expected_version=expected_version)
    return plan


async def test_a_plan_says_what_is_charged_and_limits_all_of_an_organization(
    work_as, operator, org, database, installation, published
) -> None:
    await put_on(work_as, operator, org, FULL)
    assert published == [OrganizationChanged(org.id, policy=True)]
    found = await snapshot_of(database, org.id, installation.settings)
    assert found["charging"] == {
        "rates": [{"from_ns": 0, "picos": 10**12}],
        "markup_ppm": 150_000,
        "fee_nanos": 1_000_000,
    }
    whole = {"kind": "organization", "id": str(org.id)}
    assert {(each["resource"], each["mode"]) for each in found["limits"]} == {("requests", "hard")}
    assert all(each["scope"] == whole and each["where"] is None for each in found["limits"])
    assert sorted((each["kind"], each["cap"], each["window"]) for each in found["limits"]) == [
        ("quota", 500, {"kind": "calendar", "period": "day", "time_zone": "UTC"}),
        ("quota", 10_000, {"kind": "calendar", "period": "month", "time_zone": "UTC"}),
        ("rate", 60, {"kind": "rolling", "seconds": 60}),
    ]


async def test_a_limit_keeps_its_name_from_plan_to_plan(
    work_as, operator, org, foreign, database, installation
) -> None:
    async def names() -> dict[str, int]:
        found = await snapshot_of(database, org.id, installation.settings)
        return {each["id"]: each["cap"] for each in found["limits"]}

    await put_on(work_as, operator, org, FULL)
    first = await names()
    await put_on(work_as, operator, org, {**FULL, "name": "Big", "requests_per_day": 7}, 2)
    second = await names()
    assert first.keys() == second.keys()
    assert sorted(second.values()) == [7, 60, 10_000]
    async with work_as(operator) as work:
        await set_plan(work, org.id, None, expected_version=3)
    assert await names() == {}
    await put_on(work_as, operator, foreign, {**FULL, "name": "Theirs"})
    other = await snapshot_of(database, foreign.id, installation.settings)
    assert {each["id"] for each in other["limits"]} & first.keys() == set()


async def test_a_change_of_a_plan_is_told_to_all_who_are_on_it(
    work_as, operator, org, foreign, database, installation, published
) -> None:
    plan = await put_on(work_as, operator, org, FULL)
    async with work_as(operator) as work:
        await set_plan(work, foreign.id, plan.id, expected_version=1)
    published.clear()
    async with work_as(operator) as work:
        row = await update_plan(
            work, plan.id, {"markup_ppm": 0, "requests_per_day": None}, expected_version=1
        )
    assert row.version == 2
    assert sorted(published, key=str) == sorted(
        [OrganizationChanged(each.id, policy=True) for each in (org, foreign)], key=str
    )
    found = await snapshot_of(database, foreign.id, installation.settings)
    assert found["charging"]["markup_ppm"] == 0
    assert sorted(each["cap"] for each in found["limits"]) == [60, 10_000]


async def test_an_edit_that_changes_nothing_is_no_event(
    work_as, operator, org, database, published
) -> None:
    plan = await put_on(work_as, operator, org, FULL)
    published.clear()
    before = await everything(database)
    async with work_as(operator) as work:
        await update_plan(work, plan.id, FULL, expected_version=1)
        await set_plan(work, org.id, plan.id, expected_version=2)
    assert await everything(database) == before
    assert published == []


@pytest.mark.parametrize(
    "wanted",
    [
        {"name": ""},
        {"markup_ppm": -1},
        {"markup_ppm": MARKUP_PPM_MAX + 1},
        {"fees": {"XXX": 1}},
        {"fees": {"USD": -1}},
        {"requests_per_month": -1},
        {"requests_per_day": REQUESTS_MAX + 1},
        {"requests_per_minute": -1},
    ],
)
async def test_what_no_plan_can_be_changes_nothing(
    work_as, operator, org, database, published, wanted
) -> None:
    plan = await put_on(work_as, operator, org, FULL)
    published.clear()
    before = await everything(database)
    with pytest.raises(InvalidInput):
        async with work_as(operator) as work:
            await create_plan(work, {**FULL, "name": "Other", **wanted})
    with pytest.raises(InvalidInput):
        async with work_as(operator) as work:
            await update_plan(work, plan.id, wanted, expected_version=1)
    assert await everything(database) == before
    assert published == []


async def test_the_largest_figures_are_kept_exactly(work_as, operator, database) -> None:
    wanted = {
        "name": "Largest",
        "markup_ppm": MARKUP_PPM_MAX,
        "fees": {"USD": 2**63 - 1},
        "requests_per_month": REQUESTS_MAX,
        "requests_per_day": 0,
    }
    async with work_as(operator) as work:
        plan_id = (await create_plan(work, wanted)).id
    async with database.read() as session:
        row = await session.get(Plan, plan_id)
    assert {name: getattr(row, name) for name in wanted} == wanted


async def test_nobody_silently_pays_no_fee(work_as, operator, org, database, published) -> None:
    async with work_as(SYSTEM) as work:
        other = await create_organization(work, slug="nt", name="NT", currency="TWD")
    plan = await put_on(work_as, operator, org, FULL)
    published.clear()
    before = await everything(database)
    with pytest.raises(Conflict):
        async with work_as(operator) as work:
            await set_plan(work, other.id, plan.id, expected_version=1)
    with pytest.raises(Conflict):
        async with work_as(operator) as work:
            await update_plan(work, plan.id, {"fees": {"EUR": 1}}, expected_version=1)
    assert await everything(database) == before
    assert published == []


async def test_an_archived_plan_is_given_to_nothing_new(
    work_as, operator, org, foreign, database, installation
) -> None:
    plan = await put_on(work_as, operator, org, FULL)
    async with work_as(operator) as work:
        await archive_plan(work, plan.id, expected_version=1, reason="old")
    before = await everything(database)
    async with work_as(operator) as work:
        await archive_plan(work, plan.id, expected_version=1)
    with pytest.raises(Conflict):
        async with work_as(operator) as work:
            await set_plan(work, foreign.id, plan.id, expected_version=1)
    with pytest.raises(Conflict):
        async with work_as(operator) as work:
            await create_plan(work, {"name": FULL["name"]})
    assert await everything(database) == before
    found = await snapshot_of(database, org.id, installation.settings)
    assert found["charging"]["markup_ppm"] == 150_000


async def test_stale_edits_change_nothing(work_as, operator, org, database) -> None:
    plan = await put_on(work_as, operator, org, FULL)
    before = await everything(database)
    for version in (0, 2):
        with pytest.raises(StaleVersion):
            async with work_as(operator) as work:
                await update_plan(work, plan.id, {"markup_ppm": 1}, expected_version=version)
        with pytest.raises(StaleVersion):
            async with work_as(operator) as work:
                await archive_plan(work, plan.id, expected_version=version)
    with pytest.raises(StaleVersion):
        async with work_as(operator) as work:
            await set_plan(work, org.id, None, expected_version=1)
    assert await everything(database) == before


async def test_only_the_operator_has_plans(work_as, org, operator, foreign, database) -> None:
    plan = await put_on(work_as, operator, org, FULL)
    before = await everything(database)
    for caller in (*org.callers().values(), foreign.admin):
        for change in (
            lambda work: create_plan(work, {"name": "Mine"}),
            lambda work: update_plan(work, plan.id, {"markup_ppm": 0}, expected_version=1),
            lambda work: archive_plan(work, plan.id, expected_version=1),
            lambda work: set_plan(work, org.id, None, expected_version=2),
        ):
            with pytest.raises((NotPermitted, NotFound)):
                async with work_as(caller) as work:
                    await change(work)
    assert await everything(database) == before


async def test_there_are_only_so_many_plans(work_as, operator, database, monkeypatch) -> None:
    assert PLANS_MAX == 1_000
    monkeypatch.setattr(service, "PLANS_MAX", 2)
    async with work_as(operator) as work:
        await create_plan(work, {"name": "1"})
        await create_plan(work, {"name": "2"})
    before = await everything(database)
    with pytest.raises(LimitExceeded):
        async with work_as(operator) as work:
            await create_plan(work, {"name": "3"})
    assert await everything(database) == before


async def test_plans_are_on_record(work_as, operator, org, database) -> None:
    plan = await put_on(work_as, operator, org, FULL)
    async with work_as(operator) as work:
        await update_plan(work, plan.id, {"markup_ppm": 1}, expected_version=1)
        await archive_plan(work, plan.id, expected_version=2, reason="old")
    async with database.read() as session:
        events = list(await session.scalars(select(AdminEvent)))
    found = {
        each.action: (each.organization_id, each.before, each.after)
        for each in events
        if each.action.startswith(("plan.", "organization.set"))
    }
    assert found.keys() == {"plan.create", "plan.update", "plan.archive", "organization.set_plan"}
    assert found["plan.update"][1]["markup_ppm"] == 150_000
    assert found["plan.update"][2]["markup_ppm"] == 1
    assert found["plan.archive"][2]["reason"] == "old"
    place, before, after = found["organization.set_plan"]
    assert (place, before["plan_id"], after["plan_id"]) == (org.id, None, str(plan.id))
