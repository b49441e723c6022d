"""Live spend and the tail of requests through the whole stack, against the ledger."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from comptroller.simulator.running import RunningSimulator
from controlplane.access.service import create_access_token
from controlplane.api.nodes import NodeKind, global_id
from controlplane.limits.models import ScopeKind
from controlplane.live import graphql as live
from controlplane.money import format_money
from controlplane.tenancy.models import Member, User
from controlplane.tenancy.service import create_member
from tests.live.conftest import LIVE, Socket, place_of
from tests.stack import Stack

pytestmark = pytest.mark.usefixtures("insides", "quick")

LOG = """subscription($place: ID!, $filter: RequestFilterInput) {
  requestLog(organizationId: $place, filter: $filter) {
    seq dropped requests { requestId decision charge keyId } } }"""
MODEL = "sim-flat-0.05"
REQUESTS = 25


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "INTERVAL_MS_MIN", 20)
    monkeypatch.setattr(live, "TAIL_INTERVAL_S", 0.02)


def member_with_token(stack: Stack, name: str, *, is_in_team: bool) -> tuple[Any, str]:
    """Make another member; gives its id and token."""

    async def make(work: Any) -> tuple[Any, str]:
        member = await create_member(
            work,
            stack.organization_id,
            email=f"{name}-{stack.organization_id.hex[-8:]}@live.example",
            team_id=stack.team_id if is_in_team else None,
        )
        user = await work.session.get(User, member.user_id)
        return member.id, await create_access_token(work, user=user, member=member, name="own")

    return stack.change(make)


def token_of(stack: Stack) -> str:
    async def make(work: Any) -> str:
        member = await work.session.get(Member, stack.member_id)
        user = await work.session.get(User, member.user_id)
        return await create_access_token(work, user=user, member=member, name="own")

    return stack.change(make)


def spend(stack: Stack, secret: str, count: int = 1) -> list[int]:
    """Send requests, one after the other; gives their statuses."""
    with httpx.Client(headers={"authorization": f"Bearer {secret}"}, timeout=30) as client:
        body = {"model": MODEL, "messages": [{"role": "user", "content": "Hello"}]}
        return [
            client.post(f"{stack.base_url}/chat/completions", json=body).status_code
            for _ in range(count)
        ]


def wait_until(client: Socket, is_there: Callable[[Any], bool]) -> Any:
    """Read snapshots until one is as told; gives it."""
    last = 0
    while True:
        message = client.next()
        assert message["type"] == "next", message
        told = message["payload"]["data"]["liveSpend"]
        assert int(told["seq"]) > last
        last = int(told["seq"])
        if is_there(told):
            return told


def requests_in(told: Any) -> int:
    return int(told["scopes"][0]["requestsPerMinute"])


def test_two_organizations_at_once_add_up_to_their_ledgers(
    stack, other, dial, provider: RunningSimulator
) -> None:
    with dial() as one, dial() as two, ThreadPoolExecutor(2) as pool:
        running = []
        for client, tenant in ((one, stack), (two, other)):
            _, secret = tenant.key()
            spend(tenant, secret, 3)
            running.append(pool.submit(spend, tenant, secret, REQUESTS))
            client.init(tenant.admin_token)
            client.subscribe("a", place=place_of(tenant), ms=20)
        for each in running:
            assert each.result(60) == [200] * REQUESTS
        for client, tenant in ((one, stack), (two, other)):
            told = wait_until(client, lambda each: requests_in(each) == REQUESTS + 3)
            [scope] = told["scopes"]
            assert tenant.ledger_nanos() > 0
            assert scope["lastMinute"] == format_money(tenant.ledger_nanos())
            assert scope["lastHour"] == format_money(tenant.ledger_nanos())
            assert scope["refusedPerMinute"] == "0"
            assert scope["scope"]["id"] == place_of(tenant)


def test_team_member_and_key_have_figures_of_their_own(
    stack, dial, provider: RunningSimulator
) -> None:
    other_id, _ = member_with_token(stack, "other", is_in_team=False)
    keys = [stack.key(), stack.key(), stack.key(member_id=other_id, team_id=None)]
    for (_, secret), count in zip(keys, (1, 2, 4), strict=True):
        assert spend(stack, secret, count) == [200] * count
    stack.budget(stack.scope(ScopeKind.KEY, keys[0][0]), "0.000000001")
    assert spend(stack, keys[0][1]) == [402]
    organization = stack.organization_id
    ids = {
        "organizationId": place_of(stack),
        "teamId": global_id(NodeKind.TEAM, organization, stack.team_id),
        "memberId": global_id(NodeKind.MEMBER, organization, stack.member_id),
        "keyId": global_id(NodeKind.KEY, organization, keys[1][0]),
    }
    scopes = [
        *({name: each} for name, each in ids.items()),
        {"memberId": global_id(NodeKind.MEMBER, organization, other_id)},
        # One that is named twice is shown once.
        {"teamId": ids["teamId"]},
    ]
    with dial() as client:
        client.init(stack.admin_token)
        client.subscribe("a", place=place_of(stack), scopes=scopes, ms=20)
        told = wait_until(client, lambda each: requests_in(each) == 8)
    [charge] = {entry.charge_nanos for entry in stack.ledger()}
    shown = [
        (
            each["scope"]["kind"],
            each["lastMinute"],
            each["requestsPerMinute"],
            each["refusedPerMinute"],
        )
        for each in told["scopes"]
    ]
    assert shown == [
        ("ORGANIZATION", format_money(7 * charge), "8", "1"),
        ("TEAM", format_money(3 * charge), "4", "1"),
        ("MEMBER", format_money(3 * charge), "4", "1"),
        ("KEY", format_money(2 * charge), "2", "0"),
        ("MEMBER", format_money(4 * charge), "4", "0"),
    ]


def test_a_member_sees_its_own_and_nothing_else(stack, dial, provider: RunningSimulator) -> None:
    other_id, _ = member_with_token(stack, "other", is_in_team=True)
    _, own = stack.key()
    foreign_key, foreign = stack.key(member_id=other_id)
    spend(stack, own, 2)
    spend(stack, foreign, 3)
    organization = stack.organization_id
    member = global_id(NodeKind.MEMBER, organization, stack.member_id)
    with dial() as client:
        client.init(token_of(stack))
        client.subscribe("a", place=place_of(stack), ms=20)
        told = wait_until(client, lambda each: requests_in(each) == 2)
        [scope] = told["scopes"]
        assert scope["scope"] == {"kind": "MEMBER", "id": member}
        hidden = [
            {"organizationId": place_of(stack)},
            {"teamId": global_id(NodeKind.TEAM, organization, stack.team_id)},
            {"memberId": global_id(NodeKind.MEMBER, organization, other_id)},
            {"keyId": global_id(NodeKind.KEY, organization, foreign_key)},
        ]
        client.send({"id": "a", "type": "complete"})
        for each in hidden:
            client.subscribe("b", place=place_of(stack), scopes=[{"memberId": member}, each])
            message = client.next()
            assert message["payload"]["data"] is None, each
            [error] = message["payload"]["errors"]
            assert error["extensions"]["code"] == "NOT_FOUND"
            assert client.next() == {"id": "b", "type": "complete"}


def test_a_scope_of_another_organization_is_not_found(stack, other, dial) -> None:
    with dial() as client:
        client.init(stack.admin_token)
        for each in ({"organizationId": place_of(other)}, {"teamId": "x"}):
            client.subscribe("a", place=place_of(stack), scopes=[each])
            [error] = client.next()["payload"]["errors"]
            assert error["extensions"]["code"] == "NOT_FOUND"
            client.next()
        for scopes in ([], [{"organizationId": place_of(stack)}] * 21):
            client.subscribe("a", place=place_of(stack), scopes=scopes)
            [error] = client.next()["payload"]["errors"]
            assert error["message"] == "Name 1 to 20 scopes."
            client.next()


class Log:
    """Reads the tail of requests, and adds up what is shown and what is left out."""

    def __init__(self, client: Socket) -> None:
        self._client = client
        self.requests: list[Any] = []
        self.dropped = 0
        self.batches = 0

    def read(self, count: int) -> None:
        """Read until so many requests are accounted for."""
        while len(self.requests) + self.dropped < count:
            message = self._client.next()
            assert message["type"] == "next", message
            told = message["payload"]["data"]["requestLog"]
            self.batches += 1
            assert told["seq"] == str(self.batches)
            assert len(told["requests"]) <= 50
            self.requests += told["requests"]
            self.dropped += told["dropped"]


def follow(dial_socket: Socket, token: str, insides: Any, stack: Stack, **variables: Any) -> Log:
    dial_socket.init(token)
    dial_socket.subscribe("log", query=LOG, place=place_of(stack), **variables)
    insides.wait_for((1, 1, 1, 1))
    return Log(dial_socket)


def test_requests_are_shown_as_they_end(stack, dial, insides, provider: RunningSimulator) -> None:
    key_id, secret = stack.key()
    with dial() as client:
        log = follow(client, stack.admin_token, insides, stack)
        spend(stack, secret, 3)
        log.read(3)
    records = [f"req_{record.id.hex}" for record in stack.records()]
    assert ([each["requestId"] for each in log.requests], log.dropped) == (records, 0)
    assert {each["keyId"] for each in log.requests} == {
        global_id(NodeKind.KEY, stack.organization_id, key_id)
    }


def test_a_filter_is_obeyed(stack, dial, insides, provider: RunningSimulator) -> None:
    key_id, secret = stack.key()
    with dial() as client:
        log = follow(client, stack.admin_token, insides, stack, filter={"decisions": ["refused"]})
        spend(stack, secret, 2)
        stack.budget(stack.scope(ScopeKind.KEY, key_id), "0.000000001")
        assert spend(stack, secret) == [402]
        log.read(1)
    assert [each["decision"] for each in log.requests] == ["refused"]
    assert log.dropped == 0


def test_a_member_follows_its_own_requests(
    stack, dial, insides, provider: RunningSimulator
) -> None:
    other_id, _ = member_with_token(stack, "other", is_in_team=True)
    key_id, own = stack.key()
    _, foreign = stack.key(member_id=other_id)
    with dial() as client:
        log = follow(client, token_of(stack), insides, stack)
        spend(stack, foreign, 3)
        spend(stack, own, 2)
        log.read(2)
    assert {each["keyId"] for each in log.requests} == {
        global_id(NodeKind.KEY, stack.organization_id, key_id)
    }
    assert (len(log.requests), log.dropped) == (2, 0)


def test_of_many_at_once_the_newest_are_shown_and_the_others_counted(
    stack, other, dial, insides, provider: RunningSimulator
) -> None:
    """600 records of one moment, written as the request path writes them."""
    _, secret = stack.key()
    spend(stack, secret)
    [seen] = stack.records()
    with dial() as client, dial() as stranger:
        for follower, tenant in ((stranger, other), (client, stack)):
            follower.init(tenant.admin_token)
            follower.subscribe("log", query=LOG, place=place_of(tenant))
        insides.wait_for((2, 2, 2, 2))
        log = Log(client)
        ids = stack.run(lambda: write_many(stack, seen, 600))
        log.read(600)
        assert (len(log.requests) + log.dropped, len(log.requests)) == (
            600,
            live.REQUESTS_PER_BATCH_MAX * log.batches,
        )
        assert log.requests[-1]["requestId"] == ids[-1]
        stranger.send({"type": "ping"})
        assert stranger.next() == {"type": "pong"}


async def write_many(stack: Stack, seen: Any, count: int) -> list[str]:
    from controlplane.ledger.records import DecisionRecord  # noqa: PLC0415

    recorder, ids = stack.comptroller.recorder, stack.comptroller.ids
    names = [ids.new_uuid() for _ in range(count)]
    for number, name in enumerate(names):
        recorder.put(
            DecisionRecord(
                id=name.bytes,
                organization_id=stack.organization_id,
                key_id=seen.key_id,
                team_id=seen.team_id,
                member_id=seen.member_id,
                route=seen.route,
                policy_version=seen.policy_version,
                currency=seen.currency,
                invoice_period=seen.invoice_period,
                decision="refused",
                http_status=429,
                admitted_at_ns=seen.admitted_at_ns + number,
                finished_at_ns=seen.finished_at_ns + number,
                latency_ns=1,
                engine_version="1",
            )
        )
    await recorder.flush()
    return [f"req_{each.hex}" for each in names]


def test_a_changed_limit_is_shown_by_the_next_snapshot(stack, dial) -> None:
    """What was read for one event is not what the next one shows."""
    query = LIVE.replace("requestsPerMinute", "budgets { limit } requestsPerMinute")
    scope = stack.scope(ScopeKind.ORGANIZATION)
    with dial() as client:
        client.init(stack.admin_token)
        client.subscribe("a", query=query, place=place_of(stack), ms=20)
        first = wait_until(client, lambda _: True)
        assert first["scopes"][0]["budgets"] == []
        version = stack.budget(scope, "5")
        wait_until(client, lambda told: told["scopes"][0]["budgets"] == [{"limit": "5.00"}])
        stack.budget(scope, "7", version=version)
        wait_until(client, lambda told: told["scopes"][0]["budgets"] == [{"limit": "7.00"}])


@pytest.mark.parametrize(
    ("ms", "pause_s"),
    [(-5, 0.25), (0, 0.25), (250, 0.25), (700, 0.7), (10_000, 10), (2**31 - 1, 10)],
)
def test_the_interval_is_brought_into_its_range(stack, dial, monkeypatch, ms, pause_s) -> None:
    import asyncio  # noqa: PLC0415

    monkeypatch.setattr(live, "INTERVAL_MS_MIN", 250)
    slept: list[float] = []

    class Loop:
        """Stands for the module, whose `sleep` is taken note of."""

        @staticmethod
        async def sleep(seconds: float) -> None:
            slept.append(seconds)
            await asyncio.Event().wait()

    monkeypatch.setattr(live, "asyncio", Loop)
    with dial() as client:
        client.init(stack.admin_token)
        client.subscribe("a", place=place_of(stack), ms=ms)
        assert client.next()["type"] == "next"
        client.send({"type": "ping"})
        assert client.next() == {"type": "pong"}
    assert slept == [pause_s]


def test_what_is_sent_is_json_on_one_line(stack, dial) -> None:
    with dial() as client:
        client.init(stack.admin_token)
        client.subscribe('a"\\\n', place=place_of(stack))
        text = client.connection.recv(20)
        assert json.loads(text)["id"] == 'a"\\\n'
        assert "\n" not in text
