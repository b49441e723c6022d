"""One execution for all who may see the same: shared answers are the answers of each alone."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace
from typing import Any
from uuid import uuid4

import pytest
import strawberry
from graphql import OperationType
from strawberry.types.execution import PreExecutionError
from structlog.testing import capture_logs

from controlplane.api import fanout
from controlplane.api.documents import PreparedDocument
from controlplane.api.fanout import EVENTS_WAITING_MAX, FanOut, Listener, sharing_key
from controlplane.api.faults import shown
from controlplane.api.nodes import NodeKind, global_id
from controlplane.api.operation import Operation, OperationBody, RequestError
from controlplane.api.request import Context
from controlplane.api.schema import Schema
from controlplane.authz import Caller, sight
from controlplane.errors import NotFound
from controlplane.keys.changes import KeyChanges, update_key
from controlplane.keys.service import NewKey, create_key
from tests.controlplane.api.conftest import Api
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


class Ear:
    """Listens to a subscription and waits for what it says."""

    def __init__(self, fan_out: FanOut, operation: Operation, caller: Caller) -> None:
        self._fan_out, self._operation, self._caller = fan_out, operation, caller
        self.woken = asyncio.Event()
        self.listener: Listener = fan_out.listen(operation, caller, "r", self.woken.set)

    async def next(self) -> Any:
        """Wait for the next answer; gives the errors at the end."""
        async with asyncio.timeout(20):
            while not self.listener.pending and not self.listener.is_over:
                self.woken.clear()
                await self.woken.wait()
        if self.listener.pending:
            return json.loads(self.listener.pending.popleft())
        return {"ended": self.listener.errors}

    def leave(self) -> None:
        self._fan_out.leave(self._operation, self._caller, self.listener)


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


def operation_of(
    text: str, variables: dict[str, Any] | None = None, root_field: str = ""
) -> Operation:
    return Operation(
        text,
        None,
        variables or {},
        OperationType.SUBSCRIPTION,
        root_field,
        None,  # type: ignore[arg-type]
    )


class Stage:
    """What the subscriptions of a made-up schema say, as the test tells them."""

    def __init__(self) -> None:
        self.says: asyncio.Queue[Any] = asyncio.Queue()
        self.executions = 0
        self.ends = 0

    async def lines(self) -> AsyncGenerator[int, None]:
        self.executions += 1
        try:
            while True:
                said = await self.says.get()
                if isinstance(said, Exception):
                    raise said
                if said is None:
                    return
                yield said
        finally:
            self.ends += 1


@pytest.fixture
def stage(api):
    """A made-up schema with a feed of snapshots and one of events; and its fan-out."""
    made = Stage()

    @strawberry.type
    class Query:
        there: bool = True

    @strawberry.type
    class Subscription:
        @strawberry.subscription
        async def live_spend(self) -> AsyncGenerator[int, None]:
            async for each in made.lines():
                yield each

        @strawberry.subscription
        async def events(self) -> AsyncGenerator[int, None]:
            async with aclosing(made.lines()) as lines:
                async for each in lines:
                    yield each

        @strawberry.subscription
        async def late(self) -> AsyncGenerator[int, None]:
            raise OSError("hunter2")
            yield 1

        @strawberry.subscription
        async def unknown(self) -> AsyncGenerator[int, None]:
            raise NotFound("There is no such thing.")
            yield 1

    schema = Schema(query=Query, subscription=Subscription, extensions=[PreparedDocument])
    made.fan_out = FanOut(schema, api.plane.backend)  # type: ignore[attr-defined]
    return made


SNAPSHOTS = operation_of("subscription { liveSpend }", root_field="liveSpend")
EVENTS = operation_of("subscription { events }", root_field="events")


async def said(stage: Stage, *lines: Any) -> None:
    """Say lines, and wait until all of them have been delivered."""
    for each in lines:
        stage.says.put_nowait(each)
    # Each line takes a few turns of the loop, and nothing else.
    for _ in range(20 * (len(lines) + 1)):
        await asyncio.sleep(0)
    assert stage.says.empty()


async def test_two_who_ask_the_same_are_one_execution(stage, org) -> None:
    ears = [Ear(stage.fan_out, EVENTS, org.admin) for _ in range(2)]
    other = Ear(stage.fan_out, EVENTS, org.member)
    await said(stage)
    assert (stage.executions, stage.fan_out.sources_count) == (2, 2)
    other.leave()
    await said(stage, 1)
    assert [await each.next() for each in ears] == [{"data": {"events": 1}}] * 2
    ears[0].leave()
    ears[0].leave()
    await said(stage, 2)
    assert await ears[1].next() == {"data": {"events": 2}}
    assert not ears[0].listener.pending
    ears[1].leave()
    await said(stage)
    assert (stage.ends, stage.fan_out.sources_count) == (2, 0)


async def test_a_newcomer_to_snapshots_is_sent_the_latest_at_once(stage, org) -> None:
    first = Ear(stage.fan_out, SNAPSHOTS, org.admin)
    await said(stage, 1, 2)
    late = Ear(stage.fan_out, SNAPSHOTS, org.admin)
    assert list(late.listener.pending) == ['{"data":{"liveSpend":2}}']
    assert late.woken.is_set()
    assert list(first.listener.pending) == ['{"data":{"liveSpend":2}}']


async def test_a_newcomer_to_events_is_not(stage, org) -> None:
    first = Ear(stage.fan_out, EVENTS, org.admin)
    await said(stage, 1, 2)
    late = Ear(stage.fan_out, EVENTS, org.admin)
    await said(stage, 3)
    assert [len(each.listener.pending) for each in (first, late)] == [3, 1]


async def test_who_reads_slowly_misses_the_oldest_events_and_sees_the_gap(stage, org) -> None:
    ear = Ear(stage.fan_out, EVENTS, org.admin)
    await said(stage, *range(EVENTS_WAITING_MAX))
    assert len(ear.listener.pending) == EVENTS_WAITING_MAX
    await said(stage, *range(EVENTS_WAITING_MAX, EVENTS_WAITING_MAX + 5))
    seen = [(await ear.next())["data"]["events"] for _ in range(EVENTS_WAITING_MAX)]
    assert seen == list(range(5, EVENTS_WAITING_MAX + 5))
    assert not ear.listener.pending


async def test_a_subscription_that_ends_ends_for_all(stage, org) -> None:
    ears = [Ear(stage.fan_out, EVENTS, org.admin) for _ in range(3)]
    await said(stage, 1, None)
    for each in ears:
        assert await each.next() == {"data": {"events": 1}}
        assert await each.next() == {"ended": None}
        each.leave()
    assert stage.fan_out.sources_count == 0
    again = Ear(stage.fan_out, EVENTS, org.admin)
    await said(stage, 2)
    assert await again.next() == {"data": {"events": 2}}
    # One that has not left the source that ended takes nothing from the one after it.
    ears[0].leave()
    assert stage.fan_out.sources_count == 1


async def test_a_failure_ends_it_for_all_and_is_masked(stage, org) -> None:
    ears = [Ear(stage.fan_out, EVENTS, org.admin) for _ in range(3)]
    with capture_logs() as logs:
        await said(stage, 1, OSError("hunter2"))
        for each in ears:
            assert await each.next() == {"data": {"events": 1}}
            last = await each.next()
            assert last["data"] is None
            [error] = last["errors"]
            assert error["message"] == "Something went wrong here."
            assert error["extensions"] == {"code": "INTERNAL", "requestId": "r"}
            assert await each.next() == {"ended": None}
    assert [each["event"] for each in logs] == ["api_error"]
    assert stage.fan_out.sources_count == 0


@pytest.mark.parametrize(
    ("text", "code", "message"),
    [
        ("subscription { late }", "INTERNAL", "Something went wrong here."),
        ("subscription { unknown }", "NOT_FOUND", "There is no such thing."),
        ("subscription { events @skip(if: true) }", "BAD_USER_INPUT", None),
        ("subscription { events @include(if: false) }", "BAD_USER_INPUT", None),
    ],
)
async def test_one_that_cannot_begin_says_why(stage, org, text, code, message) -> None:
    ear = Ear(stage.fan_out, operation_of(text), org.admin)
    with capture_logs() as logs:
        told = await ear.next()
        # What fails in a resolver is the only answer; what cannot be executed has none.
        [error] = told["errors"] if "errors" in told else told["ended"]
    assert error["extensions"]["code"] == code
    assert "data" not in told or await ear.next() == {"ended": None}
    assert message in {None, error["message"]}
    assert len(logs) == (code == "INTERNAL")
    assert stage.fan_out.sources_count == 0


async def test_only_so_many_subscriptions_run(stage, org, monkeypatch) -> None:
    monkeypatch.setattr(fanout, "SOURCES_MAX", 2)
    callers = [org.admin, org.member, org.other_member]
    ears = [Ear(stage.fan_out, EVENTS, each) for each in callers[:2]]
    with pytest.raises(RequestError) as refused:
        Ear(stage.fan_out, EVENTS, callers[2])
    assert refused.value.status == 503
    assert stage.fan_out.sources_count == 2
    # One that runs already may be listened to.
    Ear(stage.fan_out, EVENTS, callers[0])
    ears[1].leave()
    Ear(stage.fan_out, EVENTS, callers[2])


async def test_all_end_when_the_process_does(stage, org) -> None:
    ears = [Ear(stage.fan_out, EVENTS, each) for each in (org.admin, org.member)]
    await said(stage)
    await stage.fan_out.stop()
    assert [await each.next() for each in ears] == [{"ended": None}] * 2
    assert (stage.ends, stage.fan_out.sources_count) == (2, 0)
    with pytest.raises(RequestError):
        Ear(stage.fan_out, EVENTS, org.admin)


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
