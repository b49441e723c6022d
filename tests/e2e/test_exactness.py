"""Hard caps under load: exactly as much is let through as the cap holds, to the nano unit."""

from __future__ import annotations

import asyncio
from collections import Counter

import httpx
import pytest

from comptroller.simulator.running import RunningSimulator
from controlplane.limits.models import ScopeKind
from controlplane.money import parse_money
from tests.stack import Stack

LEVELS = (ScopeKind.KEY, ScopeKind.MEMBER, ScopeKind.TEAM, ScopeKind.ORGANIZATION)
CODES = {
    ScopeKind.KEY: "key_budget_exceeded",
    ScopeKind.MEMBER: "member_budget_exceeded",
    ScopeKind.TEAM: "team_budget_exceeded",
    ScopeKind.ORGANIZATION: "tenant_budget_exceeded",
}


def _body(model: str, text: str = "Hello", **fields) -> dict:
    return {"model": model, "messages": [{"role": "user", "content": text}], **fields}


async def _many(stack: Stack, secret: str, count: int, body: dict) -> list[httpx.Response]:
    limits = httpx.Limits(max_connections=50)
    headers = {"authorization": f"Bearer {secret}"}
    async with httpx.AsyncClient(limits=limits, headers=headers, timeout=60) as client:
        address = f"{stack.base_url}/chat/completions"
        return await asyncio.gather(*(client.post(address, json=body) for _ in range(count)))


@pytest.mark.parametrize("level", LEVELS)
def test_two_hundred_at_once_spend_exactly_the_cap(
    stack: Stack, provider: RunningSimulator, level: ScopeKind
) -> None:
    key_id, secret = stack.key()
    stack.budget(stack.scope(level, key_id), "1.00")
    provider.assert_max("1.00")
    answers = asyncio.run(
        _many(stack, secret, 200, _body("sim-flat-0.05", "[[sim latency_ms=300]]"))
    )
    assert Counter(each.status_code for each in answers) == {200: 20, 402: 180}
    refused = [each.json()["error"] for each in answers if each.status_code == 402]
    assert {each["code"] for each in refused} == {CODES[level]}
    assert {each["limit"]["requested"] for each in refused} == {"0.05"}
    if level in {ScopeKind.KEY, ScopeKind.MEMBER}:
        for limit in (each["limit"] for each in refused):
            taken = parse_money(limit["used"]) + parse_money(limit["held"])
            assert (limit["cap"], taken) == ("1.00", parse_money("1.00"))
    else:
        assert all("cap" not in each["limit"] for each in refused if level is not ScopeKind.TEAM)
    assert stack.ledger_nanos() == provider.bill()["total_nanos"] == parse_money("1.00")
    assert provider.bill()["violations"] == []
    assert stack.open_reservations() == 0
    assert len(stack.records()) == 200


@pytest.mark.parametrize("tightest", LEVELS)
def test_of_nested_budgets_the_tightest_decides(
    stack: Stack, provider: RunningSimulator, tightest: ScopeKind
) -> None:
    key_id, secret = stack.key()
    for level in LEVELS:
        stack.budget(stack.scope(level, key_id), "0.25" if level is tightest else "0.50")
    answers = asyncio.run(_many(stack, secret, 20, _body("sim-flat-0.05")))
    assert Counter(each.status_code for each in answers) == {200: 5, 402: 15}
    codes = {each.json()["error"]["code"] for each in answers if each.status_code == 402}
    assert codes == {CODES[tightest]}
    assert stack.ledger_nanos() == provider.bill()["total_nanos"] == parse_money("0.25")


async def _hang_up_midway(stack: Stack, secret: str, number: int, body: dict) -> int:
    headers = {"authorization": f"Bearer {secret}"}
    async with (
        httpx.AsyncClient(headers=headers, timeout=60) as client,
        client.stream("POST", f"{stack.base_url}/chat/completions", json=body) as answer,
    ):
        if answer.status_code != 200:
            await answer.aread()
            return answer.status_code
        async for _ in answer.aiter_bytes():
            if number % 2:
                break
        return 200


def test_streams_half_of_which_hang_up_never_pass_the_cap(
    stack: Stack, provider: RunningSimulator
) -> None:
    key_id, secret = stack.key()
    stack.budget(stack.scope(ScopeKind.KEY, key_id), "0.01")
    provider.assert_max("0.01")
    # 30 tokens at 10.00 per million, and some input: about 30 of them fit.
    body = _body("sim-large", "[[sim pace=100]] Hi", stream=True, max_tokens=30)

    async def all_of_them() -> list[int]:
        streams = (_hang_up_midway(stack, secret, number, body) for number in range(60))
        return await asyncio.gather(*streams)

    statuses = Counter(asyncio.run(all_of_them()))
    assert statuses[200] + statuses[402] == 60
    assert statuses[200] >= 20
    assert statuses[402] > 0
    _until_settled(stack)
    assert provider.bill()["violations"] == []
    assert stack.ledger_nanos() == provider.bill()["total_nanos"] <= parse_money("0.01")
    assert {entry.usage_source for entry in stack.ledger()} == {"provider"}
    assert any(record.client_disconnected for record in stack.records())


def _until_settled(stack: Stack) -> None:
    async def settled() -> None:
        while stack.open_reservations():  # noqa: ASYNC110 - the engine tells nobody when it is empty
            await asyncio.sleep(0.01)

    stack.run(settled)
