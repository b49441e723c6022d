"""Who listens to a subscription is told what it says, in time and once; of a made-up schema."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import pytest
import strawberry
from structlog.testing import capture_logs

from controlplane.api import fanout
from controlplane.api.documents import PreparedDocument
from controlplane.api.fanout import EVENTS_WAITING_MAX, FanOut
from controlplane.api.operation import RequestError
from controlplane.api.schema import Schema
from controlplane.errors import NotFound
from tests.controlplane.api.listening import Ear, operation_of


@pytest.fixture
def database_url(sqlite_url_of_test: str) -> str:
    """No database is asked for anything here."""
    return sqlite_url_of_test


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


async def test_nobody_takes_all_of_them(stage, org, monkeypatch) -> None:
    monkeypatch.setattr(fanout, "SOURCES_PER_USER_MAX", 1)
    ear = Ear(stage.fan_out, EVENTS, org.member)
    with pytest.raises(RequestError) as refused:
        Ear(stage.fan_out, SNAPSHOTS, org.member)
    assert refused.value.status == 429
    Ear(stage.fan_out, SNAPSHOTS, org.other_member)
    ear.leave()
    Ear(stage.fan_out, SNAPSHOTS, org.member)


async def test_all_end_when_the_process_does(stage, org) -> None:
    ears = [Ear(stage.fan_out, EVENTS, each) for each in (org.admin, org.member)]
    await said(stage)
    await stage.fan_out.stop()
    assert [await each.next() for each in ears] == [{"ended": None}] * 2
    assert (stage.ends, stage.fan_out.sources_count) == (2, 0)
    with pytest.raises(RequestError):
        Ear(stage.fan_out, EVENTS, org.admin)
