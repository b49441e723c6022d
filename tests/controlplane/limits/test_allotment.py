"""A strict team's budgets never add up to more than its own, whatever is changed."""

from __future__ import annotations

from uuid import uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import select

from controlplane.audit.models import AdminEvent
from controlplane.authz import SYSTEM, Caller
from controlplane.errors import (
    CeilingExceeded,
    Conflict,
    ControlPlaneError,
    IdempotencyMismatch,
    InvalidInput,
    NotFound,
    NotPermitted,
    StaleVersion,
)
from controlplane.keys.changes import update_key
from controlplane.keys.service import NewKey, create_key, revoke_key
from controlplane.limits.models import CAP_MAX, Limit, Mode, Period, ScopeKind
from controlplane.limits.moves import Move, move_budget
from controlplane.limits.service import archive_budget, upsert_budget
from controlplane.limits.subjects import Scope, member_in_team
from controlplane.tenancy.changes import update_member, update_team
from controlplane.tenancy.models import Allotment, Team
from tests.controlplane.conftest import member_id
from tests.controlplane.everything import everything


@pytest.fixture
async def scopes(work_as, org) -> dict[str, Scope]:
    async with work_as(SYSTEM) as work:
        new = NewKey("ci", team_id=org.team)
        key = (await create_key(work, org.id, new, idempotency_key="1")).key
    return {
        "team": Scope(ScopeKind.TEAM, org.team),
        "member": Scope(ScopeKind.MEMBER, member_id(org.member)),
        "lead": Scope(ScopeKind.MEMBER, member_id(org.team_admin)),
        "both": member_in_team(member_id(org.member), org.team),
        "key": Scope(ScopeKind.KEY, key.id),
        "stranger": Scope(ScopeKind.MEMBER, member_id(org.other_member)),
    }


@pytest.fixture
def put(work_as, org, scopes):
    async def change(name: str, cap_nanos: int, version=None, caller=None, **more) -> Limit:
        more.setdefault("period", Period.MONTH)
        async with work_as(caller or org.admin) as work:
            return await upsert_budget(
                work, org.id, scopes[name], cap_nanos=cap_nanos, expected_version=version, **more
            )

    return change


@pytest.fixture
def allot(work_as, org, database):
    async def change(kind: Allotment, caller=None) -> Team:
        async with database.read() as session:
            version = (await session.get(Team, org.team)).version
        async with work_as(caller or org.admin) as work:
            changes = {"allot": kind}
            return await update_team(work, org.id, org.team, changes, expected_version=version)

    return change


async def refused(database, change) -> CeilingExceeded:
    before = await everything(database)
    with pytest.raises(CeilingExceeded) as fault:
        await change
    assert await everything(database) == before
    return fault.value


async def test_caps_may_add_up_to_more_until_the_team_is_strict(put, allot, database) -> None:
    ceiling = await put("team", 100)
    for name, cap in [("member", 60), ("both", 30), ("key", 11)]:
        await put(name, cap)
    fault = await refused(database, allot(Allotment.STRICT))
    assert (fault.limit_nanos, fault.attempted_nanos, fault.ceiling.id) == (100, 101, ceiling.id)
    assert fault.field == ("allot",)
    await put("key", 10, 1)
    assert (await allot(Allotment.STRICT)).allot is Allotment.STRICT
    for change, attempted in [
        (put("key", 11, 2), 101),
        (put("lead", 1), 101),
        (put("team", 99, 1), 100),
    ]:
        fault = await refused(database, change)
        assert fault.attempted_nanos == attempted
    await put("stranger", 1_000)
    # Other windows, and what only measures, share out nothing of it.
    await put("lead", 50, period=Period.DAY)
    await put("lead", 50, mode=Mode.SHADOW)
    await refused(database, put("lead", 50, 1))
    await put("team", 200, 1)
    await put("lead", 50, 1)


async def test_who_comes_into_the_team_brings_its_budgets(
    put, allot, work_as, org, scopes, database
) -> None:
    await put("team", 100)
    await put("member", 60)
    await put("stranger", 41)
    await allot(Allotment.STRICT)

    async def move_in() -> None:
        async with work_as(org.admin) as work:
            changes = {"team_id": org.team}
            await update_member(work, org.id, scopes["stranger"].id, changes, expected_version=1)

    fault = await refused(database, move_in())
    assert (fault.field, fault.attempted_nanos) == (("teamId",), 101)
    await put("stranger", 40, 1)
    await move_in()
    async with work_as(org.admin) as work:
        key = (await create_key(work, org.id, NewKey("x"), idempotency_key="2")).key
        scope = Scope(ScopeKind.KEY, key.id)
        await upsert_budget(work, org.id, scope, period=Period.MONTH, cap_nanos=1)

    async def give(team_id) -> None:
        async with work_as(org.admin) as work:
            await update_key(work, org.id, key.id, {"team_id": team_id}, expected_version=1)

    assert (await refused(database, give(org.team))).field == ("teamId",)
    await give(org.other_team)


async def test_a_revoked_key_shares_out_nothing(put, allot, work_as, org, scopes) -> None:
    await put("team", 10)
    await put("key", 10)
    await allot(Allotment.STRICT)
    async with work_as(org.admin) as work:
        await revoke_key(work, org.id, scopes["key"].id)
    await put("member", 10)


async def test_sums_beyond_64_bits_are_compared(put, allot, database) -> None:
    await put("team", CAP_MAX)
    await put("member", CAP_MAX)
    await put("key", CAP_MAX)
    fault = await refused(database, allot(Allotment.STRICT))
    assert fault.attempted_nanos == 2 * CAP_MAX


async def test_only_an_admin_makes_a_team_strict(allot, org, database) -> None:
    before = await everything(database)
    operator = Caller(uuid4(), operator=True)
    for caller, fault in [
        (operator, NotPermitted),
        (org.team_admin, NotPermitted),
        (org.member, NotFound),
    ]:
        with pytest.raises(fault):
            await allot(Allotment.STRICT, caller)
    assert await everything(database) == before


@pytest.fixture
def move(work_as, org):
    async def change(giver, taker, amount, versions=(1, 1), key="1", caller=None):
        wanted = Move(giver.id, taker.id, amount, *versions)
        async with work_as(caller or org.team_admin) as work:
            return await move_budget(work, org.id, wanted, idempotency_key=key)

    return change


async def test_a_team_admin_moves_budget_inside_its_team(put, move, org, database) -> None:
    giver, taker = await put("member", 60), await put("key", 30)
    async with database.read() as session:
        before = {each.id for each in await session.scalars(select(AdminEvent))}
    moved = await move(giver, taker, 25)
    assert (moved.giver.cap, moved.taker.cap, moved.replayed) == (35, 55, False)
    assert (moved.giver.version, moved.taker.version) == (2, 2)
    async with database.read() as session:
        found = await session.scalars(select(AdminEvent))
        [event] = [each for each in found if each.id not in before]
    assert (event.action, event.target_id) == ("budget.move", giver.id)
    caps = [(each["from"]["cap"], each["to"]["cap"]) for each in (event.before, event.after)]
    assert caps == [(60, 30), (35, 55)]
    known = await everything(database)
    again = await move(giver, taker, 25)
    assert (again.giver.cap, again.taker.cap, again.replayed) == (35, 55, True)
    with pytest.raises(IdempotencyMismatch):
        await move(giver, taker, 24)
    assert await everything(database) == known
    everything_left = await move(giver, taker, 35, (2, 2), "2")
    assert (everything_left.giver.cap, everything_left.taker.cap) == (0, 90)


async def test_a_move_that_cannot_be_changes_nothing(put, move, org, foreign, database) -> None:
    giver, taker = await put("member", 60), await put("key", 30)
    ceiling = await put("team", 80)
    stranger, day = await put("stranger", 60), await put("lead", 60, period=Period.DAY)
    zone = await put("lead", 60, time_zone="UTC")
    shadow = await put("both", 60, mode=Mode.SHADOW)
    cases = [
        (move(giver, taker, 0), InvalidInput),
        (move(giver, taker, -1), InvalidInput),
        (move(giver, taker, 61), InvalidInput),
        (move(giver, giver, 1), InvalidInput),
        (move(giver, taker, 51), CeilingExceeded),
        (move(giver, taker, 1, (2, 1)), StaleVersion),
        (move(giver, taker, 1, (1, 2)), StaleVersion),
        (move(giver, stranger, 1, caller=org.admin), Conflict),
        (move(giver, stranger, 1), NotFound),
        (move(giver, day, 1), Conflict),
        (move(giver, zone, 1), Conflict),
        (move(giver, shadow, 1), Conflict),
        (move(giver, ceiling, 1, caller=org.admin), Conflict),
        (move(ceiling, taker, 1), NotPermitted),
        (move(giver, taker, 1, caller=org.billing_viewer), NotPermitted),
        (move(giver, taker, 1, caller=org.member), NotPermitted),
        (move(giver, taker, 1, caller=org.other_member), NotFound),
        (move(giver, taker, 1, caller=foreign.admin), NotFound),
        (move(giver, taker, 1, key=""), InvalidInput),
    ]
    before = await everything(database)
    for change, fault in cases:
        with pytest.raises(fault):
            await change
        assert await everything(database) == before
    await move(giver, taker, 50)


async def test_a_lifted_budget_gives_nothing(put, move, work_as, org, database) -> None:
    giver, taker = await put("member", 60), await put("key", 30)
    async with work_as(org.admin) as work:
        await archive_budget(work, org.id, giver.id, expected_version=1)
    before = await everything(database)
    with pytest.raises(Conflict):
        await move(giver, taker, 1, (2, 1))
    assert await everything(database) == before


NAMES = ("team", "member", "lead", "both", "key")
CHANGES = st.one_of(
    st.tuples(st.just("put"), st.sampled_from(NAMES), st.integers(0, 60)),
    st.tuples(st.just("move"), st.sampled_from(NAMES), st.sampled_from(NAMES), st.integers(0, 40)),
    st.tuples(st.just("lift"), st.sampled_from(NAMES)),
    st.tuples(st.just("strict")),
    st.tuples(st.just("free")),
)


@settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(changes=st.lists(CHANGES, min_size=1, max_size=12))
async def test_whatever_is_tried_sums_never_pass_the_ceiling(
    put, move, allot, work_as, org, scopes, database, changes
) -> None:
    """Model: caps by name, and whether the team is strict; the same database goes on and on."""
    await allot(Allotment.FREE)
    strict = False
    for number, change in enumerate(changes):
        rows = await live(database, org, scopes)
        caps = {name: row.cap for name, row in rows.items()}
        new, is_strict = expected(caps, change, strict=strict)
        try:
            await make(change, rows, (put, move, allot, work_as, org), f"{id(changes)}-{number}")
            done = True
        except ControlPlaneError:
            done = False
        assert done == (new is not None), change
        found = {name: row.cap for name, row in (await live(database, org, scopes)).items()}
        assert found == (caps if new is None else new)
        strict = strict if new is None else is_strict
        if strict:
            assert fits(found)


def fits(caps: dict[str, int]) -> bool:
    shared_out = sum(cap for name, cap in caps.items() if name != "team")
    return "team" not in caps or shared_out <= caps["team"]


def expected(caps, change, *, strict: bool):
    """Say what the caps shall be, None for a refusal, and whether the team is strict then."""
    kind, *rest = change
    new, after = dict(caps), strict
    if kind == "put":
        new[rest[0]] = rest[1]
    elif kind == "lift":
        if new.pop(rest[0], None) is None:
            return None, strict
    elif kind == "move":
        giver, taker, amount = rest
        is_known = giver in caps and taker in caps and giver != taker
        if not is_known or "team" in (giver, taker) or not 0 < amount <= caps[giver]:
            return None, strict
        new[giver] -= amount
        new[taker] += amount
        if new[taker] > caps.get("team", CAP_MAX):
            return None, strict
    else:
        after = kind == "strict"
    return (None, strict) if after and not fits(new) else (new, after)


async def make(change, rows, tools, key: str) -> None:
    put, move, allot, work_as, org = tools
    kind, *rest = change
    if kind == "put":
        known = rows.get(rest[0])
        await put(rest[0], rest[1], None if known is None else known.version)
    elif kind == "lift":
        if rest[0] not in rows:
            raise NotFound("none")
        row = rows[rest[0]]
        async with work_as(org.admin) as work:
            await archive_budget(work, org.id, row.id, expected_version=row.version)
    elif kind == "move":
        if rest[0] not in rows or rest[1] not in rows:
            raise NotFound("none")
        giver, taker = rows[rest[0]], rows[rest[1]]
        versions = (giver.version, taker.version)
        await move(giver, taker, rest[2], versions, key, org.admin)
    else:
        await allot(Allotment(kind))


async def live(database, org, scopes) -> dict[str, Limit]:
    async with database.read() as session:
        query = select(Limit).where(Limit.organization_id == org.id, Limit.archived_at.is_(None))
        rows = list(await session.scalars(query))
    names = {scope: name for name, scope in scopes.items()}
    return {names[Scope(row.scope_kind, row.scope_id)]: row for row in rows}
