"""Crossings and breaker events are shown to those who may see whose they are."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

from controlplane.limits.models import Period, ScopeKind
from controlplane.limits.nesting import breaker_id
from controlplane.limits.service import archive_budget, upsert_budget
from controlplane.limits.subjects import Scope
from tests.controlplane.api.furniture import breaker_event_row, crossing_row

CROSSINGS = """query($first: Int!, $after: String) { organization(slug: "acme") {
  thresholdCrossings(first: $first, after: $after) { pageInfo { endCursor hasNextPage } nodes {
    percent periodStart settled cap at budget { period scope { kind } } } } } }"""
EVENTS = """{ organization(slug: "acme") { breakerEvents { nodes {
  windowSeconds state spent threshold at breaker { scope { label } perMinute } } } } }"""
CALIBRATIONS = """query($first: Int!, $after: String) { calibrations(first: $first, after: $after) {
  pageInfo { endCursor hasNextPage } nodes { provider model ratio raisedAt requestId version } } }"""
CALIBRATE = """mutation($input: CalibrationSetInput!) { calibrationSet(input: $input) {
  calibration { model ratio version } errors { code field } } }"""
RESET = """mutation($input: BreakerResetInput!) { breakerReset(input: $input) {
  breaker { state windows { seconds current state source } } errors { code } } }"""
SEEN_BY = {
    "admin": {"organization", "team"},
    "billing_viewer": {"organization", "team"},
    "team_admin": {"team"},
    "member": set(),
    "other_member": set(),
}


async def budgets(org, work_as) -> dict[str, Any]:
    scopes = (Scope(ScopeKind.ORGANIZATION, org.id), Scope(ScopeKind.TEAM, org.team))
    async with work_as(org.admin) as work:
        return {
            scope.kind.value: await upsert_budget(
                work, org.id, scope, period=Period.MONTH, cap_nanos=10**10
            )
            for scope in scopes
        }


async def crossings(api, token: str, **variables: Any) -> Any:
    found = await api.ask(token, CROSSINGS, **({"first": 50} | variables))
    return found["organization"]["thresholdCrossings"]


async def test_a_crossing_is_shown_with_its_budget(api, org, work_as, database, clock) -> None:
    made, now_ns = await budgets(org, work_as), clock.wall_ns()
    async with database.write() as session:
        session.add(crossing_row(org.id, made["team"].id, uuid4(), now_ns))
        # Of a limit that is none of this organization's budgets nothing is shown.
        session.add(crossing_row(org.id, uuid4(), uuid4(), now_ns))
    token = await api.token(org.admin)
    [found] = (await crossings(api, token))["nodes"]
    assert found == {
        "percent": 80,
        "periodStart": "2026-03-14T09:26:52.999999Z",
        "settled": "10.00",
        "cap": "12.34",
        "at": "2026-03-14T09:26:53Z",
        "budget": {"period": "MONTH", "scope": {"kind": "TEAM"}},
    }
    async with work_as(org.admin) as work:
        await archive_budget(work, org.id, made["team"].id, expected_version=1)
    [found] = (await crossings(api, token))["nodes"]
    assert (found["budget"], found["percent"]) == (None, 80)


async def test_crossings_and_events_are_for_those_who_see_the_scope(
    api, org, foreign, work_as, database, clock
) -> None:
    made, now_ns = await budgets(org, work_as), clock.wall_ns()
    async with database.write() as session:
        session.add_all(crossing_row(org.id, row.id, uuid4(), now_ns) for row in made.values())
        session.add(breaker_event_row(org.id, org.team, uuid4(), now_ns))
        session.add(
            breaker_event_row(
                org.id,
                org.id,
                uuid4(),
                now_ns,
                scope_kind=ScopeKind.ORGANIZATION,
                limit_id=breaker_id(ScopeKind.ORGANIZATION, org.id, 3600),
            )
        )
    names = {"Acme": "organization", "Red": "team"}
    for name, caller in org.callers().items():
        token = await api.token(caller)
        shown = (await crossings(api, token))["nodes"]
        assert {each["budget"]["scope"]["kind"].lower() for each in shown} == SEEN_BY[name], name
        events = (await api.ask(token, EVENTS))["organization"]["breakerEvents"]["nodes"]
        labels = {names[each["breaker"]["scope"]["label"]] for each in events}
        assert labels == SEEN_BY[name], name
    token = await api.token(foreign.admin)
    assert await api.ask(token, EVENTS) == {"organization": None}


async def test_events_tell_which_window_and_what_it_became(api, org, database, clock) -> None:
    now_ns = clock.wall_ns()
    async with database.write() as session:
        session.add(breaker_event_row(org.id, org.team, uuid4(), now_ns))
    token = await api.token(org.admin)
    [event] = (await api.ask(token, EVENTS))["organization"]["breakerEvents"]["nodes"]
    assert event == {
        "windowSeconds": 60,
        "state": "OPEN",
        "spent": "6.00",
        "threshold": "5.00",
        "at": "2026-03-14T09:26:53Z",
        "breaker": {"scope": {"label": "Red"}, "perMinute": None},
    }


async def test_pages_of_crossings_hold_each_once(api, org, work_as, database, clock) -> None:
    made, now_ns = await budgets(org, work_as), clock.wall_ns()
    async with database.write() as session:
        session.add_all(
            crossing_row(org.id, made["team"].id, uuid4(), now_ns, percent=each)
            for each in range(1, 6)
        )
    token, seen, after = await api.token(org.admin), [], None
    for has_next in (True, True, False):
        page = await crossings(api, token, first=2, after=after)
        seen += [each["percent"] for each in page["nodes"]]
        after = page["pageInfo"]["endCursor"]
        assert page["pageInfo"]["hasNextPage"] is has_next
    assert sorted(seen) == [1, 2, 3, 4, 5]


async def test_calibrations_are_the_operators(api, org) -> None:
    operator = await api.operator_token()
    for model in ("b", "c", "a"):
        wanted = {"provider": "one", "model": model, "ratio": 3, "reason": "seen"}
        done = (await api.ask(operator, CALIBRATE, input=wanted))["calibrationSet"]
        assert done == {"calibration": {"model": model, "ratio": 3, "version": 1}, "errors": []}
    page = (await api.ask(operator, CALIBRATIONS, first=2))["calibrations"]
    assert [each["model"] for each in page["nodes"]] == ["a", "b"]
    after = page["pageInfo"]["endCursor"]
    page = (await api.ask(operator, CALIBRATIONS, first=2, after=after))["calibrations"]
    assert page["nodes"] == [
        {
            "provider": "one",
            "model": "c",
            "ratio": 3,
            "raisedAt": None,
            "requestId": None,
            "version": 1,
        }
    ]
    body = (await api.post(await api.token(org.admin), CALIBRATIONS, first=2)).json()
    assert body["errors"][0]["extensions"]["code"] == "FORBIDDEN"


async def test_a_breaker_that_the_ledger_opens_is_closed_by_hand(api, org, clock) -> None:
    token = await api.token(org.admin)
    place = await api.ask(token, '{ organization(slug: "acme") { id } }')
    scope = {"organizationId": place["organization"]["id"]}
    make = """mutation($input: VirtualKeyCreateInput!) { virtualKeyCreate(input: $input) {
      errors { code } } }"""
    await api.ask(token, make, input={**scope, "name": "k", "idempotencyKey": "1"})
    await api.traffic()
    put = """mutation($input: BreakerSetInput!) { breakerSet(input: $input) {
      breaker { id state version } errors { code } } }"""
    wanted = {"scope": scope, "perMinute": "0.05"}
    breaker = (await api.ask(token, put, input=wanted))["breakerSet"]["breaker"]
    assert breaker["state"] == "OPEN"
    wanted = {"breakerId": breaker["id"], "expectedVersion": 1, "reason": "a known import"}
    done = (await api.ask(token, RESET, input=wanted))["breakerReset"]
    closed = {"current": "0.00", "state": "CLOSED", "source": "LEDGER"}
    assert done == {
        "breaker": {
            "state": "CLOSED",
            "windows": [{"seconds": 60, **closed}, {"seconds": 3600, **closed}],
        },
        "errors": [],
    }
    # It goes on counting.
    await api.traffic()
    query = "query($id: ID!) { node(id: $id) { ... on Breaker { state } } }"
    assert (await api.ask(token, query, id=breaker["id"]))["node"] == {"state": "OPEN"}
