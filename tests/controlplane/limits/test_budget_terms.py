"""Everything a budget may be: windows, scopes, choices of requests, steps, holds."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import pytest

from controlplane.errors import (
    Conflict,
    InvalidInput,
    LimitExceeded,
    NotFound,
    NotPermitted,
    StaleVersion,
)
from controlplane.keys.service import NewKey, create_key
from controlplane.limits.asked import WindowAsked
from controlplane.limits.models import Hold, Limit, Mode, Period, ScopeKind, WindowKind
from controlplane.limits.periods import window_at
from controlplane.limits.rows import LIMITS_PER_SCOPE_MAX
from controlplane.limits.service import archive_budget, upsert_budget
from controlplane.limits.steps import Step, StepAction
from controlplane.limits.subjects import Scope, labelled, member_in_team
from controlplane.limits.where import WHERE_NAMES_MAX
from controlplane.limits.windows import Calendar, EveryDays, Lifetime
from controlplane.pools.service import create_pool
from tests.controlplane.conftest import member_id
from tests.controlplane.everything import everything

DAYS = WindowAsked(days=30, anchor=date(2026, 1, 31))


def organization(org) -> Scope:
    return Scope(ScopeKind.ORGANIZATION, org.id)


@pytest.fixture
def upsert(work_as, org):
    async def change(scope, cap_nanos=5, caller=None, **more) -> Limit:
        async with work_as(caller or org.admin) as work:
            return await upsert_budget(work, org.id, scope, cap_nanos=cap_nanos, **more)

    return change


async def refused(database, fault, change) -> None:
    before = await everything(database)
    with pytest.raises(fault):
        await change
    assert await everything(database) == before


async def test_a_scope_has_budgets_over_every_window_at_once(upsert, org, clock) -> None:
    scope = organization(org)
    rows = [await upsert(scope, period=each) for each in Period]
    rows.append(await upsert(scope, window=DAYS))
    rows.append(await upsert(scope, window=WindowAsked(is_lifetime=True)))
    assert len({row.id for row in rows}) == 5
    assert [row.hold for row in rows] == [Hold.EXPECTED] * 5
    days, ever = rows[3], rows[4]
    assert (days.window_kind, days.window_days, days.window_anchor, days.window_time_zone) == (
        WindowKind.DAYS,
        30,
        date(2026, 1, 31),
        "Europe/Berlin",
    )
    assert (ever.window_kind, ever.window_starts_at, ever.window_time_zone) == (
        WindowKind.LIFETIME,
        None,
        None,
    )


async def test_days_begin_with_the_key_or_today(upsert, work_as, org, clock) -> None:
    # At 23:30 UTC it is tomorrow in Berlin.
    clock.advance_ns((14 * 3600 + 3 * 60 + 7) * 10**9)
    async with work_as(org.admin) as work:
        key = (await create_key(work, org.id, NewKey("ci"), idempotency_key="1")).key
    clock.advance_ns(5 * 86_400 * 10**9)
    asked = WindowAsked(days=7)
    of_key = await upsert(Scope(ScopeKind.KEY, key.id), window=asked)
    of_organization = await upsert(organization(org), window=asked)
    assert (of_key.window_anchor, of_organization.window_anchor) == (
        date(2026, 3, 15),
        date(2026, 3, 20),
    )
    clock.advance_ns(10**9)
    kept = await upsert(organization(org), window=asked, expected_version=1)
    assert (kept.window_anchor, kept.next_window, kept.version) == (date(2026, 3, 20), None, 1)


async def test_each_choice_of_requests_is_a_budget_of_its_own(upsert, org, database) -> None:
    scope = organization(org)
    first = await upsert(scope, period=Period.MONTH)
    models = {"models": ["gpt-5", "a", "gpt-5"], "tiers": None}
    second = await upsert(scope, period=Period.MONTH, where=models)
    again = await upsert(
        scope, 7, period=Period.MONTH, where={"models": ["a", "gpt-5"]}, expected_version=1
    )
    assert first.id != second.id == again.id
    assert (again.where, again.cap) == ({"models": ["a", "gpt-5"]}, 7)
    nothing = await upsert(scope, 8, period=Period.MONTH, where={}, expected_version=1)
    assert nothing.id == first.id
    other = {"where": {"models": ["b"]}, "budget_id": again.id, "expected_version": 2}
    await refused(database, InvalidInput, upsert(scope, **other))


@pytest.mark.parametrize(
    "where",
    [
        {"models": []},
        {"models": [""]},
        {"models": ["é" * 101]},
        {"tiers": ["t"] * (WHERE_NAMES_MAX + 1)},
        {"providers": ["a\0"]},
    ],
)
async def test_an_unusable_choice_changes_nothing(upsert, org, database, where) -> None:
    await refused(database, InvalidInput, upsert(organization(org), period=Period.DAY, where=where))


@pytest.mark.parametrize(
    "window",
    [
        WindowAsked(),
        WindowAsked(period=Period.DAY, days=3),
        WindowAsked(days=0),
        WindowAsked(days=367),
        WindowAsked(days=1, anchor=date(1970, 12, 31)),
        WindowAsked(days=1, anchor=date(2200, 1, 1)),
        WindowAsked(period=Period.DAY, time_zone="Mars"),
        WindowAsked(is_lifetime=True, time_zone="UTC"),
        WindowAsked(is_lifetime=True, starts_at=datetime(2300, 1, 1, tzinfo=UTC)),
    ],
)
async def test_an_unusable_window_changes_nothing(upsert, org, database, window) -> None:
    await refused(database, InvalidInput, upsert(organization(org), window=window))


async def test_labels_pools_and_members_in_teams_have_budgets(upsert, work_as, org) -> None:
    async with work_as(org.admin) as work:
        pool = await create_pool(work, org.id, name="Research")
    scopes = [
        Scope(ScopeKind.POOL, pool.id),
        member_in_team(member_id(org.member), org.team),
        *(labelled(kind, label) for kind in KINDS for label in (None, "x")),
    ]
    rows = [await upsert(scope, period=Period.DAY) for scope in scopes]
    assert [Scope(row.scope_kind, row.scope_id) for row in rows] == scopes
    assert [row.label for row in rows[2:]] == [None, "x"] * 4


KINDS = (ScopeKind.FEATURE, ScopeKind.AGENT, ScopeKind.END_USER, ScopeKind.SESSION)


async def test_who_may_set_which_of_the_new_scopes(upsert, work_as, org, foreign, database) -> None:
    async with work_as(org.admin) as work:
        pool = Scope(ScopeKind.POOL, (await create_pool(work, org.id, name="p")).id)
    mine = member_in_team(member_id(org.member), org.team)
    elsewhere = member_in_team(member_id(org.member), org.other_team)
    feature = labelled(ScopeKind.FEATURE, None)
    for caller, scope, fault in [
        (org.team_admin, pool, NotFound),
        (org.team_admin, feature, NotFound),
        (org.team_admin, elsewhere, NotFound),
        (org.billing_viewer, feature, NotPermitted),
        (org.member, mine, NotPermitted),
        (org.member, feature, NotFound),
        (org.admin, member_in_team(member_id(foreign.member), org.team), NotFound),
        (org.admin, member_in_team(member_id(org.member), foreign.team), NotFound),
        (org.admin, labelled(ScopeKind.PROVIDER, "openai"), NotFound),
        (org.admin, labelled(ScopeKind.INSTALLATION, ""), NotFound),
        (foreign.admin, pool, NotFound),
    ]:
        await refused(database, fault, upsert(scope, caller=caller, period=Period.DAY))
    await upsert(mine, caller=org.team_admin, period=Period.DAY)


async def test_what_is_left_out_of_a_budget_stays(upsert, org, database) -> None:
    scope = organization(org)
    steps = [Step(80, StepAction.NOTIFY)]
    full = {"hold": Hold.BOUND, "steps": steps, "cooldown_s": 60}
    await upsert(scope, period=Period.DAY, mode=Mode.SOFT, changes=full)
    kept = await upsert(scope, 6, period=Period.DAY, mode=Mode.SOFT, expected_version=1)
    assert (kept.hold, kept.steps, kept.cooldown_s) == (
        Hold.BOUND,
        [{"percent": 80, "action": "notify"}],
        60,
    )
    hard = await upsert(scope, 6, period=Period.DAY, expected_version=2)
    assert (hard.mode, hard.steps, hard.cooldown_s) == (Mode.HARD, kept.steps, None)
    bare = await upsert(scope, 6, period=Period.DAY, expected_version=3, changes={"steps": []})
    assert bare.steps is None
    wrong = {"steps": [Step(100, StepAction.CONFIRM)]}
    await refused(
        database,
        InvalidInput,
        upsert(scope, period=Period.DAY, expected_version=4, changes=wrong),
    )


async def test_another_time_zone_counts_from_the_end_of_the_period_on(upsert, org, clock) -> None:
    scope = organization(org)
    made = await upsert(scope, period=Period.MONTH)
    changed = await upsert(scope, period=Period.MONTH, time_zone="Asia/Taipei", expected_version=1)
    boundary = datetime(2026, 3, 31, 22, tzinfo=UTC)
    assert changed.id == made.id
    assert (changed.window_time_zone, changed.next_from) == ("Europe/Berlin", boundary)
    assert changed.next_window == {
        "kind": "calendar",
        "period": "month",
        "time_zone": "Asia/Taipei",
    }
    # What is left out stays as it will be.
    kept = await upsert(scope, 9, period=Period.MONTH, expected_version=2)
    assert kept.next_window == changed.next_window
    just_before = boundary - timedelta(microseconds=1)
    assert window_at(kept, just_before) == Calendar(Period.MONTH, "Europe/Berlin")
    assert window_at(kept, boundary) == Calendar(Period.MONTH, "Asia/Taipei")
    cancelled = await upsert(
        scope, 9, period=Period.MONTH, time_zone="Europe/Berlin", expected_version=3
    )
    assert (cancelled.next_window, cancelled.next_from) == (None, None)


async def test_a_change_of_window_is_the_budgets_own_once_it_is_in_force(
    upsert, org, clock
) -> None:
    scope = organization(org)
    made = await upsert(scope, period=Period.DAY)
    changed = await upsert(
        None, budget_id=made.id, window=WindowAsked(period=Period.WEEK), expected_version=1
    )
    assert (changed.id, changed.window_period) == (made.id, Period.DAY)
    assert changed.next_from == datetime(2026, 3, 14, 23, tzinfo=UTC)
    clock.advance_ns(86_400 * 10**9)
    later = await upsert(None, 7, budget_id=made.id, window=WindowAsked(), expected_version=2)
    assert (later.window_period, later.next_window, later.cap) == (Period.WEEK, None, 7)
    # Its old place is free again.
    other = await upsert(scope, period=Period.DAY)
    assert other.id != made.id


async def test_a_window_is_not_changed_into_one_there_is(upsert, work_as, org, database) -> None:
    scope = organization(org)
    day, week = [await upsert(scope, period=each) for each in (Period.DAY, Period.WEEK)]
    to_week = {"budget_id": day.id, "window": WindowAsked(period=Period.WEEK)}
    await refused(database, Conflict, upsert(scope, expected_version=1, **to_week))
    async with work_as(org.admin) as work:
        await archive_budget(work, org.id, week.id, expected_version=1)
    changed = await upsert(scope, expected_version=1, **to_week)
    assert changed.id == day.id


async def test_what_counts_all_time_stays_so(upsert, org, database) -> None:
    scope, ever = organization(org), WindowAsked(is_lifetime=True)
    made = await upsert(scope, window=ever)
    raised = await upsert(scope, 9, window=ever, expected_version=1)
    assert (raised.id, raised.cap) == (made.id, 9)
    since = WindowAsked(is_lifetime=True, starts_at=datetime(2026, 1, 1, tzinfo=UTC))
    for window in (since, WindowAsked(period=Period.DAY)):
        change = upsert(None, budget_id=made.id, window=window, expected_version=2)
        await refused(database, InvalidInput, change)


async def test_a_named_budget_is_of_the_scope_that_is_named(upsert, org, database) -> None:
    made = await upsert(organization(org), period=Period.DAY)
    team = Scope(ScopeKind.TEAM, org.team)
    for change, fault in [
        (upsert(team, budget_id=made.id, period=Period.DAY, expected_version=1), NotFound),
        (upsert(None, budget_id=org.id, period=Period.DAY, expected_version=1), NotFound),
        (upsert(None, budget_id=made.id, period=Period.DAY), StaleVersion),
        (upsert(None, period=Period.DAY), InvalidInput),
    ]:
        await refused(database, fault, change)


async def test_a_scope_has_at_most_twenty_budgets(upsert, org, database) -> None:
    scope = organization(org)
    for number in range(LIMITS_PER_SCOPE_MAX):
        await upsert(scope, window=WindowAsked(days=number + 1))
    await refused(database, LimitExceeded, upsert(scope, period=Period.DAY))
    await upsert(Scope(ScopeKind.TEAM, org.team), period=Period.DAY)


async def test_the_windows_are_values() -> None:
    every = EveryDays(3, date(2026, 1, 1), "UTC")
    assert every.form() == {
        "kind": "days",
        "days": 3,
        "anchor": "2026-01-01",
        "time_zone": "UTC",
    }
    since = Lifetime(datetime(2026, 1, 1, tzinfo=UTC))
    assert since.form() == {"kind": "lifetime", "starts_at_ns": 1_767_225_600 * 10**9}
