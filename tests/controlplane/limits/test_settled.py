"""Budgets and breakers where no engine runs: the ledger says what was spent, and says so."""

from __future__ import annotations

from datetime import date
from uuid import uuid4

from sqlalchemy import event

from controlplane.clock import instant
from controlplane.ledger.models import LedgerEntryRow
from controlplane.limits.asked import WindowAsked
from controlplane.limits.models import Period, ScopeKind
from controlplane.limits.service import set_breaker, set_concurrency_limit, upsert_budget
from controlplane.limits.settled import counted, counted_breaker, settled_states
from controlplane.limits.subjects import Scope, labelled, member_in_team
from controlplane.pools.service import create_pool
from tests.controlplane.conftest import member_id

SECOND_NS = 1_000_000_000
DAY_NS = 86_400 * SECOND_NS


def entry(org, at_ns, nanos, *, team=None) -> LedgerEntryRow:
    return LedgerEntryRow(
        id=uuid4(),
        organization_id=org.id,
        key_id=uuid4(),
        team_id=team,
        admitted_at_ns=at_ns,
        settled_at_ns=at_ns,
        cost_nanos=0,
        charge_nanos=nanos,
        input_tokens=0,
        output_tokens=0,
        requests=1,
        usage_source="provider",
        overrun_nanos=0,
    )


def clock_now(clock):
    return instant(clock.wall_ns())


async def test_every_limit_of_an_answer_counts_its_own_period(
    work_as, org, foreign, database, clock
) -> None:
    now_ns = clock.wall_ns()
    # It is Saturday, 10:26:53 in Berlin: midnight there was at 23:00 UTC.
    midnight_ns = now_ns - (10 * 3600 + 26 * 60 + 53) * SECOND_NS
    async with database.write() as session:
        session.add_all(
            [
                entry(org, now_ns, 1, team=org.team),
                entry(org, midnight_ns, 10, team=org.other_team),
                entry(org, midnight_ns - 1, 100, team=org.team),
                entry(org, now_ns - 6 * DAY_NS, 1_000, team=org.team),
                entry(org, now_ns - 14 * DAY_NS, 10_000, team=org.team),
                entry(foreign, now_ns, 10**9, team=foreign.team),
            ]
        )
    place, team = Scope(ScopeKind.ORGANIZATION, org.id), Scope(ScopeKind.TEAM, org.team)
    rows = {}
    async with work_as(org.admin) as work:
        for scope in (place, team):
            for period in Period:
                rows[scope, period] = await upsert_budget(
                    work, org.id, scope, period=period, cap_nanos=10**9
                )
        await set_breaker(work, org.id, team, minute_nanos=1, hour_nanos=2)
    breakers = [counted_breaker(team, 60, 1), counted_breaker(team, 3600, 2)]
    limits = [counted(row, clock_now(clock)) for row in rows.values()] + breakers
    statements = []
    event.listen(
        database._readers.sync_engine, "before_cursor_execute", lambda *_: statements.append(_)
    )
    async with database.read() as session:
        states = await settled_states(session, org.id, limits, now_ns)
    # One for each start of a calendar period, one for each rolling window, one to begin.
    assert len(statements) <= len(Period) + 2 + 1
    settled = {name: states[row.id].settled for name, row in rows.items()}
    assert settled == {
        (place, Period.DAY): 11,
        (place, Period.WEEK): 111,
        (place, Period.MONTH): 1_111,
        (team, Period.DAY): 1,
        (team, Period.WEEK): 101,
        (team, Period.MONTH): 1_101,
    }
    assert states[rows[place, Period.DAY].id].resets_at_ns == midnight_ns + DAY_NS
    assert {state.held for state in states.values()} == {0}
    assert [states[each.id].settled for each in breakers] == [1, 1]
    assert [states[each.id].is_open for each in breakers] == [True, False]


async def test_a_rolling_window_lets_go_in_time(org, database, clock) -> None:
    at_ns = clock.wall_ns()
    async with database.write() as session:
        session.add(entry(org, at_ns, 7))
    limit = counted_breaker(Scope(ScopeKind.ORGANIZATION, org.id), 60, 7)

    async def state():
        async with database.read() as session:
            return (await settled_states(session, org.id, [limit], clock.wall_ns()))[limit.id]

    clock.advance_ns(60 * SECOND_NS - 1)
    assert ((await state()).settled, (await state()).is_open) == (7, True)
    clock.advance_ns(1)
    assert ((await state()).settled, (await state()).is_open) == (0, False)


async def test_new_scopes_and_windows_are_read_from_the_ledger(
    work_as, org, database, clock
) -> None:
    now_ns = clock.wall_ns()
    async with work_as(org.admin) as work:
        pool = await create_pool(work, org.id, name="Research")
    about = {"member_id": member_id(org.member), "feature": "search", "pools": pool.id.hex}
    rows = [entry(org, now_ns, 1, team=org.team), entry(org, now_ns - 3 * DAY_NS, 10)]
    rows.append(entry(org, now_ns - 40 * DAY_NS, 100, team=org.team))
    async with database.write() as session:
        for row in rows:
            for name, value in about.items():
                setattr(row, name, value)
        session.add_all(rows)
    scopes = [
        Scope(ScopeKind.POOL, pool.id),
        member_in_team(member_id(org.member), org.team),
        labelled(ScopeKind.FEATURE, "search"),
        labelled(ScopeKind.FEATURE, "other"),
    ]
    windows = [
        WindowAsked(days=7, anchor=date(2026, 3, 14)),
        WindowAsked(days=7, anchor=date(2026, 3, 15)),
        WindowAsked(is_lifetime=True),
        WindowAsked(is_lifetime=True, starts_at=instant(now_ns - 5 * DAY_NS)),
    ]
    limits = []
    async with work_as(org.admin) as work:
        for scope in scopes:
            for number, window in enumerate(windows):
                row = await upsert_budget(
                    work, org.id, scope, window=window, cap_nanos=9, where=WHERES[number]
                )
                limits.append(counted(row, clock_now(clock)))
        gauge = await set_concurrency_limit(work, org.id, scopes[0], requests_max=1)
        limits.append(counted(gauge, clock_now(clock)))
    async with database.read() as session:
        states = await settled_states(session, org.id, limits, now_ns)
    settled = [states[each.id].settled for each in limits]
    assert settled == [1, 11, 111, 11, 1, 1, 101, 1, 1, 11, 111, 11, 0, 0, 0, 0, 0]
    assert [states[each.id].resets_at_ns is None for each in limits[:4]] == [
        False,
        False,
        True,
        True,
    ]


# The same window twice needs two choices of requests; the entries name no model.
WHERES = (None, {"features": ["search"]}, None, {"features": ["search"]})
