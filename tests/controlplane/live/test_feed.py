"""Live figures: whoever begins to watch in mid-traffic sees what was there from the beginning."""

from __future__ import annotations

import asyncio
import random
from uuid import UUID, uuid4

import pytest

from controlplane.events import OrganizationChanged
from controlplane.ledger.records import DecisionRecord
from controlplane.limits.models import ScopeKind
from controlplane.limits.subjects import Scope
from controlplane.live.feed import TAIL_REQUESTS_MAX, LiveFeed, Tail
from controlplane.live.windows import Figures
from tests.controlplane.live.conftest import Feeds, Path, Traffic

SECOND_NS = 1_000_000_000


def paths_of(organization_id: UUID) -> list[Path]:
    teams, members = [uuid4(), uuid4()], [uuid4(), uuid4()]
    return [
        Path(organization_id),
        Path(organization_id, team_id=teams[0]),
        Path(organization_id, team_id=teams[0], member_id=members[0]),
        Path(organization_id, team_id=teams[1], member_id=members[1]),
        Path(organization_id, member_id=members[0]),
    ]


def scopes_of(paths: list[Path]) -> set[Scope]:
    found = set()
    for each in paths:
        found.add(Scope(ScopeKind.ORGANIZATION, each.organization_id))
        found.add(Scope(ScopeKind.KEY, each.key_id))
        if each.team_id is not None:
            found.add(Scope(ScopeKind.TEAM, each.team_id))
        if each.member_id is not None:
            found.add(Scope(ScopeKind.MEMBER, each.member_id))
    return found


@pytest.mark.parametrize("number", range(3))
async def test_watching_begins_without_a_gap_and_without_doubles(
    feeds: Feeds, traffic: Traffic, clock, number: int
) -> None:
    """Records are written before, during and after the tables are read."""
    chance = random.Random(number)
    organization_id = uuid4()
    paths = paths_of(organization_id)
    others = paths_of(uuid4())

    def put_some() -> None:
        for _ in range(chance.randrange(60)):
            charge = chance.choice([None, 0, chance.randrange(10**15)])
            late_ns = chance.choice([0, 1, SECOND_NS, chance.randrange(90 * SECOND_NS)])
            path = chance.choice([*paths, *others])
            feeds.recorder.put(traffic.record(path, charge, late_ns))

    async with feeds.first.watch(organization_id) as always:
        for _ in range(8):
            put_some()
            if chance.random() < 0.5:
                await feeds.recorder.flush()
            watching = feeds.second.watch(organization_id)
            begun = asyncio.create_task(watching.__aenter__())
            for _ in range(chance.randrange(30)):
                put_some()
                await asyncio.sleep(0)
            late = await begun
            put_some()
            await feeds.recorder.flush()
            for seconds in (0, chance.randrange(1, 100)):
                clock.advance_ns(seconds * SECOND_NS)
                now_ns = clock.wall_ns()
                for scope in scopes_of(paths):
                    assert late.figures(scope, now_ns) == always.figures(scope, now_ns), scope
                for scope in scopes_of(others):
                    assert late.figures(scope, now_ns) == Figures()
            await watching.__aexit__(None, None, None)


async def test_two_that_begin_at_once_count_once(feeds: Feeds, traffic: Traffic, clock) -> None:
    path = Path(uuid4())
    feeds.recorder.put(traffic.record(path, 5))
    async with (
        feeds.first.watch(path.organization_id) as one,
        feeds.first.watch(path.organization_id) as other,
    ):
        assert one is other
        feeds.recorder.put(traffic.record(path, 7))
        await feeds.recorder.flush()
        scope = Scope(ScopeKind.KEY, path.key_id)
        assert one.figures(scope, clock.wall_ns()) == Figures(12, 12, 2, 0)


async def test_what_nobody_watches_is_forgotten(feeds: Feeds, traffic: Traffic) -> None:
    path = Path(uuid4())
    feed = feeds.first
    async with feed.watch(path.organization_id), feed.watch(path.organization_id):
        assert len(feed._watched) == 1
    async with feed.tail(path.organization_id, lambda _: True):
        assert len(feed._watched) == 1
    assert feed._watched == {}


async def test_a_seeding_that_fails_leaves_nothing_behind(clock, events) -> None:
    class NoSession:
        async def __aenter__(self) -> None:
            raise OSError("the store is gone")

        async def __aexit__(self, *_: object) -> None: ...

    feed = LiveFeed(clock, NoSession, events)
    with pytest.raises(OSError, match="gone"):
        async with feed.watch(uuid4()):
            pytest.fail("figures that are not known")
    assert feed._watched == {}


async def test_a_change_of_policy_is_counted_where_it_is_watched(feeds: Feeds, events) -> None:
    one, other = uuid4(), uuid4()
    async with feeds.first.watch(one) as watched, feeds.first.watch(other) as unchanged:
        await events.publish(OrganizationChanged(one))
        assert (watched.changes, unchanged.changes) == (1, 0)


def put(tail: Tail, records: list[DecisionRecord]) -> None:
    for each in records:
        tail.put(each)


def test_a_tail_keeps_the_newest_and_counts_the_others(traffic: Traffic) -> None:
    path = Path(uuid4())
    records = [traffic.record(path) for _ in range(TAIL_REQUESTS_MAX + 1)]
    tail = Tail(lambda _: True)
    put(tail, records[:TAIL_REQUESTS_MAX])
    assert tail.take() == ([UUID(bytes=each.id) for each in records[:-1]], 0)
    assert tail.take() == ([], 0)
    put(tail, records)
    assert tail.take() == ([UUID(bytes=each.id) for each in records[1:]], 1)
    assert tail.take() == ([], 0)


def test_others_requests_neither_push_ones_own_out_nor_count(traffic: Traffic) -> None:
    own, others = Path(uuid4()), Path(uuid4())
    tail = Tail(lambda record: record.key_id == own.key_id)
    mine = traffic.record(own)
    put(tail, [mine, *(traffic.record(others) for _ in range(TAIL_REQUESTS_MAX + 1))])
    assert tail.take() == ([UUID(bytes=mine.id)], 0)
