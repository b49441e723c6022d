"""One execution for all who may see the same: shared answers are the answers of each alone."""

from __future__ import annotations

import json
from contextlib import aclosing
from dataclasses import replace
from typing import Any
from uuid import uuid4

import pytest
from graphql import OperationType
from strawberry.types.execution import PreExecutionError

from controlplane.api.fanout import sharing_key
from controlplane.api.faults import shown
from controlplane.api.nodes import NodeKind, global_id
from controlplane.api.operation import Operation, OperationBody
from controlplane.api.request import Context
from controlplane.authz import Caller, sight
from controlplane.keys.changes import KeyChanges, update_key
from controlplane.keys.service import NewKey, create_key
from tests.controlplane.api.conftest import Api
from tests.controlplane.api.listening import Ear, operation_of
from tests.controlplane.conftest import Org, member_id
from tests.controlplane.live.conftest import Path, Traffic

LIVE = """subscription Live($place: ID!, $scopes: [ScopeInput!], $ms: Int! = 500) {
  liveSpend(organizationId: $place, scopes: $scopes, intervalMs: $ms) {
    at seq scopes { scope { kind id } lastMinute lastHour requestsPerMinute refusedPerMinute
      budgets { id limit } } } }"""
RENAMED = LIVE.replace("liveSpend", "mine: liveSpend")


def accept(api: Api, caller: Caller, text: str, variables: dict[str, Any]) -> Operation:
    body = OperationBody(query=text, variables=variables)
    api.plane.api._handler.desk.buckets._buckets.clear()
    return api.plane.api._handler.desk.accept(body, caller, (OperationType.SUBSCRIPTION,), "")


async def alone(api: Api, operation: Operation, caller: Caller) -> Any:
    """Execute a subscription for one caller, past everything that is shared; gives its first."""
    context = Context(api.plane.backend, caller, "r", operation.charge)
    schema = api.plane.api.fan_out._schema
    results = await schema.subscribe(
        operation.text, variable_values=operation.variables, context_value=context
    )
    async with aclosing(results) as stream:
        async for result in stream:
            if isinstance(result, PreExecutionError):
                return {"ended": shown(tuple(result.errors or ()), "r")}
            errors = {"errors": shown(tuple(result.errors), "r")} if result.errors else {}
            return {"data": result.data} | errors
    return None


async def traffic_of(api: Api, org: Org, traffic: Traffic, recorder: Any, key_id: Any) -> None:
    charge = 1_000 if org.id.int % 2 else 700
    for number, name in enumerate(("team_admin", "member", "other_member")):
        caller = org.callers()[name]
        path = Path(org.id, caller.membership.team_id, member_id(caller))
        path.key_id = key_id if name == "member" else path.key_id
        recorder.put(traffic.record(path, charge * 10**number))
        recorder.put(traffic.record(path, None))


def scopes_in(org: Org, key_id: Any) -> list[Any]:
    """Name what may be asked for: everything, one thing of each kind, and some at once."""
    single = [
        {"organizationId": global_id(NodeKind.ORGANIZATION, org.id, org.id)},
        {"teamId": global_id(NodeKind.TEAM, org.id, org.team)},
        {"teamId": global_id(NodeKind.TEAM, org.id, org.other_team)},
        {"memberId": global_id(NodeKind.MEMBER, org.id, member_id(org.member))},
        {"memberId": global_id(NodeKind.MEMBER, org.id, member_id(org.other_member))},
        {"keyId": global_id(NodeKind.KEY, org.id, key_id)},
    ]
    return [None, [], *[[each] for each in single], single[1:], single[::-1]]


@pytest.fixture
async def busy(api, org, foreign, work_as):
    """Two organizations with a key and traffic in each; gives the key of each."""
    keys = {}
    traffic = Traffic(api.plane.installation.clock)
    for each in (org, foreign):
        async with work_as(each.admin) as work:
            owner = each.member.membership
            new = NewKey("k", member_id=owner.member_id, team_id=owner.team_id)
            keys[each.id] = (await create_key(work, each.id, new, idempotency_key="k")).key.id
        await traffic_of(api, each, traffic, api.recorder, keys[each.id])
    await api.recorder.flush()
    return keys


def questions(api: Api, org: Org, foreign: Org, keys: dict) -> list[tuple[Caller, Operation]]:
    """Let all callers of both organizations ask all of both."""
    found = []
    for owner in (org, foreign):
        place = global_id(NodeKind.ORGANIZATION, owner.id, owner.id)
        for scopes in scopes_in(owner, keys[owner.id]):
            for text in (LIVE, RENAMED) if scopes is None else (LIVE,):
                variables = {"place": place, "scopes": scopes}
                found += [
                    (caller, accept(api, caller, text, variables))
                    for caller in askers(org, foreign)
                ]
    return found


def askers(org: Org, foreign: Org) -> list[Caller]:
    """List callers of all kinds, by another token again, and another admin of each."""
    callers = [*org.callers().values(), *foreign.callers().values()]
    again = [replace(each, token_id=uuid4()) for each in callers]
    other_admins = [
        replace(
            each.admin,
            user_id=uuid4(),
            membership=replace(each.admin.membership, member_id=uuid4()),
        )
        for each in (org, foreign)
    ]
    return [*callers, *again, *other_admins]


async def test_a_shared_answer_is_the_answer_each_would_get_alone(api, org, foreign, busy) -> None:
    asked = questions(api, org, foreign, busy)
    fan_out = api.plane.api.fan_out
    ears = [Ear(fan_out, operation, caller) for caller, operation in asked]
    # Of 22 who ask 22 questions there are 10 who may see different things.
    assert (len(asked), fan_out.sources_count) == (22 * 22, 22 * 10)
    told = [await each.next() for each in ears]
    answers = 0
    for (caller, operation), answer in zip(asked, told, strict=True):
        expected = await alone(api, operation, caller)
        assert answer == expected, (caller, operation.variables)
        answers += bool(answer.get("data"))
    # Three admins and two billing viewers see all but the empty list, two team admins the widest
    # twice, their team, member and key, two members as much without the team, and two of the other
    # team without the key; each in its own organization.
    assert answers == 2 * (5 * 10 + 2 * 5 + 2 * 4 + 2 * 3)
    for each in ears:
        each.leave()
    assert fan_out.sources_count == 0


async def test_equal_keys_mean_equal_sight(api, org, foreign, busy) -> None:
    keys: dict[Any, set] = {}
    for caller, operation in questions(api, org, foreign, busy):
        keys.setdefault(sharing_key(operation, caller), set()).add(
            (sight(caller), operation.text, json.dumps(operation.variables))
        )
    assert {len(each) for each in keys.values()} == {1}


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"a": 1}, {"a": "1"}),
        ({"a": 1}, {"a": True}),
        ({"a": 0}, {"a": False}),
        ({"a": 0}, {"a": None}),
        ({"a": None}, {}),
        ({"a": [1, 2]}, {"a": [2, 1]}),
        ({"a": [[1], 2]}, {"a": [1, [2]]}),
        ({"a": "b"}, {"b": "a"}),
        ({"a": 1, "b": 2}, {"a": 2, "b": 1}),
        ({"a": ""}, {"a": None}),
        ({"a": 2**64}, {"a": 2**64 + 1}),
        ({"a": '","b":"'}, {"a": "", "b": ""}),
        ({"a": "é"}, {"a": "e\u0301"}),
    ],
)
def test_what_differs_in_a_variable_is_not_shared(org_of_nobody, one, other) -> None:
    caller = Caller(org_of_nobody)
    assert sharing_key(operation_of("x", one), caller) != sharing_key(
        operation_of("x", other), caller
    )


def test_the_order_of_members_makes_no_difference(org_of_nobody) -> None:
    caller = Caller(org_of_nobody)
    one, other = {"a": {"x": 1, "y": 2}, "b": 3}, {"b": 3, "a": {"y": 2, "x": 1}}
    assert sharing_key(operation_of("x", one), caller) == sharing_key(
        operation_of("x", other), caller
    )


@pytest.fixture
def org_of_nobody():
    return uuid4()


async def test_what_moves_out_of_sight_is_followed_no_more(api, org, busy, work_as) -> None:
    """A key that goes to another team takes its figures with it, also from who follows it."""
    key_id = busy[org.id]
    variables = {
        "place": global_id(NodeKind.ORGANIZATION, org.id, org.id),
        "scopes": [{"keyId": global_id(NodeKind.KEY, org.id, key_id)}],
        "ms": 250,
    }
    fan_out, lead = api.plane.api.fan_out, org.team_admin
    ears = {
        each: Ear(fan_out, accept(api, each, LIVE, variables), each) for each in (lead, org.admin)
    }
    for ear in ears.values():
        assert "errors" not in await ear.next()
    moved = KeyChanges(team_id=org.other_team, member_id=member_id(org.other_member))
    async with work_as(org.admin) as work:
        await update_key(work, org.id, key_id, moved, expected_version=1)
    [error] = (await ears[lead].next())["errors"]
    assert (error["message"], error["extensions"]["code"]) == ("There is no such key.", "NOT_FOUND")
    assert (await ears[lead].next()) == {"ended": None}
    assert "errors" not in await ears[org.admin].next()
    ears[org.admin].leave()


async def test_a_filter_that_cannot_be_used_is_told_before_anything_ends(api, org, foreign) -> None:
    text = """subscription($place: ID!, $filter: RequestFilterInput) {
      requestLog(organizationId: $place, filter: $filter) { seq } }"""
    variables = {
        "place": global_id(NodeKind.ORGANIZATION, org.id, org.id),
        "filter": {"teamIds": [global_id(NodeKind.TEAM, foreign.id, foreign.team)]},
    }
    ear = Ear(api.plane.api.fan_out, accept(api, org.admin, text, variables), org.admin)
    [error] = (await ear.next())["errors"]
    assert error["extensions"]["code"] == "NOT_FOUND"
