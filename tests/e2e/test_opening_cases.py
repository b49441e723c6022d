"""The cases that open `architecture.md` § 3.1: 1.00 to spend, 0.05 a request, fifty at once.

Other gateways, measured: with an exact `max_tokens` 20 of 20; without one 1, 3, 5 or 18 complete;
with a provider that generates five times what it was told 2.05 to 2.75 are spent.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from comptroller.demo import simulated_upstreams
from comptroller.simulator import SimulatorSettings, simulator_in_thread, token_priced
from comptroller.simulator.running import RunningSimulator
from controlplane.limits.models import ScopeKind
from controlplane.money import parse_money
from tests.stack import Stack, running_stack

CAP = "1.00"
CAP_NANOS = parse_money(CAP)
CALLERS = 50
REQUESTS_EACH = 4
# A thousandth of the cap a token, so that an answer of usual length is a twentieth of it.
PRICE = "1000.00"
TOKEN_NANOS = CAP_NANOS // 1000
TOKENS = 50
REQUEST_NANOS = TOKENS * TOKEN_NANOS
FITTING = CAP_NANOS // REQUEST_NANOS
# Without `max_tokens` one request could cost the whole cap.
OUTPUT_TOKENS_MAX = 1000
PACE = 50
# Four more for each token that is shown: billed and in the usage, but never sent.
UNSEEN = "overbill=5"
ABORT_TAIL_TOKENS = 2
# What a provider generates until it hears of an abort: 0.4 s, on a busy machine.
NOTICED_TOKENS = 20
# What is above the bound is seen by the first tokens beyond it: on a busy machine one read may
# bring several, each 20 ms after the other.
SEEN_TOKENS = 5
TAIL_NANOS = (SEEN_TOKENS + ABORT_TAIL_TOKENS + NOTICED_TOKENS) * TOKEN_NANOS
COMPLETED, CUT, REFUSED = "completed", "cut", "402 tenant_budget_exceeded"
VISIBLE, HIDING = ("exact", "uncapped", "excessive"), ("unseen", "learned")
_NUMBERS = count(1)


@dataclass(frozen=True, slots=True)
class Answer:
    """How a request ended and the tokens its caller saw."""

    end: str
    tokens: int = 0


@pytest.fixture(scope="module")
def opening_provider() -> Iterator[RunningSimulator]:
    """A provider whose tokens are dear and whose prompts are free."""
    model = token_priced("opening", "0", PRICE, output_tokens_max=OUTPUT_TOKENS_MAX)
    settings = SimulatorSettings(models=(model,), abort_tail_tokens=ABORT_TAIL_TOKENS, pace=PACE)
    with simulator_in_thread(settings) as running:
        yield running


@pytest.fixture(scope="module")
def opening_installation(
    tmp_path_factory: pytest.TempPathFactory, opening_provider: RunningSimulator
) -> Iterator[Stack]:
    folder: Path = tmp_path_factory.mktemp("opening")
    described: dict[str, Any] = simulated_upstreams(opening_provider.base_url)
    model = {
        "upstream_model": "opening",
        "output_tokens_max": OUTPUT_TOKENS_MAX,
        "vocabulary": "o200k_base",
        "on_disconnect": "cancel",
        "abort_tail_tokens": ABORT_TAIL_TOKENS + NOTICED_TOKENS,
    }
    # What a test teaches about a model is not forgotten: each has its own.
    models = [{**model, "name": name} for name in VISIBLE]
    models += [{**model, "name": name, "all_tokens_visible": False} for name in HIDING]
    models[0]["price"] = {"input_per_million": "0", "output_per_million": PRICE}
    described["upstreams"][0]["models"] = models
    path = folder / "own-upstreams.json"
    path.write_text(json.dumps(described))
    with running_stack(
        folder, opening_provider, organization=False, upstreams_file=path
    ) as running:
        yield running


@pytest.fixture
def opening(opening_installation: Stack, opening_provider: RunningSimulator) -> Stack:
    """A new organization with 1.00 to spend, and a provider with an empty bill that watches it."""
    opening_provider.reset()
    stack = opening_installation.tenant(f"opening-{next(_NUMBERS)}")
    stack.budget(stack.scope(ScopeKind.ORGANIZATION), CAP)
    return stack


def _body(model: str, directive: str, **fields: Any) -> dict[str, Any]:
    message = {"role": "user", "content": f"[[sim {directive}]] Hi"}
    return {"model": model, "messages": [message], **fields}


async def _one(client: openai.AsyncOpenAI, body: dict[str, Any]) -> Answer:
    try:
        if body.get("stream"):
            return await _streamed(client, body)
        raw = await client.chat.completions.with_raw_response.create(**body)
    except openai.APIStatusError as error:
        return Answer(f"{error.status_code} {error.code}")
    answer = raw.parse()
    end = CUT if "x-comptroller-cut" in raw.headers else COMPLETED
    return Answer(end, answer.usage.completion_tokens)


async def _streamed(client: openai.AsyncOpenAI, body: dict[str, Any]) -> Answer:
    tokens, finish_reason = 0, None
    async with await client.chat.completions.create(**body) as stream:
        try:
            async for chunk in stream:
                for choice in chunk.choices:
                    tokens += bool(choice.delta.content)
                    finish_reason = choice.finish_reason or finish_reason
        except openai.APIError as error:
            return Answer(CUT if error.code == "stream_cut_by_limit" else str(error.code), tokens)
    return Answer(COMPLETED if finish_reason else "unfinished", tokens)


async def _fifty_at_once(stack: Stack, secret: str, body: dict[str, Any]) -> list[Answer]:
    """Let fifty callers send four requests each, one after another."""
    limits = httpx.Limits(max_connections=CALLERS)
    async with openai.AsyncOpenAI(
        base_url=stack.base_url,
        api_key=secret,
        max_retries=0,
        timeout=60,
        http_client=httpx.AsyncClient(limits=limits),
    ) as client:

        async def caller() -> list[Answer]:
            return [await _one(client, body) for _ in range(REQUESTS_EACH)]

        several = await asyncio.gather(*(caller() for _ in range(CALLERS)))
    return [answer for answers in several for answer in answers]


def _ask(stack: Stack, body: dict[str, Any]) -> list[Answer]:
    return asyncio.run(_fifty_at_once(stack, stack.key()[1], body))


def _bill(provider: RunningSimulator) -> dict[str, Any]:
    """Read the bill once nothing is being generated any more."""
    answer = httpx.get(f"{provider.address}/_simulator/bill?when=idle", timeout=60)
    bill: dict[str, Any] = answer.json()
    return bill


def _assert_settled(stack: Stack, answers: list[Answer]) -> None:
    """Check that every request left one record, and none still holds anything."""
    assert stack.open_reservations() == 0
    decisions = Counter(each.decision for each in stack.records())
    assert decisions["refused"] == sum(answer.end == REFUSED for answer in answers)
    assert decisions.total() == len(answers) == CALLERS * REQUESTS_EACH


@pytest.mark.parametrize("streams", [False, True], ids=["json", "streams"])
def test_with_an_exact_cap_of_tokens_as_many_complete_as_the_money_pays_for(
    opening: Stack, opening_provider: RunningSimulator, streams: bool
) -> None:
    opening_provider.assert_max(CAP)
    body = _body("exact", f"output={TOKENS}", stream=streams, max_tokens=TOKENS)
    answers = _ask(opening, body)
    assert Counter(answers) == {
        Answer(COMPLETED, TOKENS): FITTING,
        Answer(REFUSED): CALLERS * REQUESTS_EACH - FITTING,
    }
    bill = _bill(opening_provider)
    assert bill["violations"] == []
    assert opening.ledger_nanos() == bill["total_nanos"] == CAP_NANOS
    _assert_settled(opening, answers)


@pytest.mark.parametrize("streams", [False, True], ids=["json", "streams"])
def test_without_a_cap_of_tokens_at_least_nineteen_of_twenty_complete(
    opening: Stack, opening_provider: RunningSimulator, streams: bool
) -> None:
    opening_provider.assert_max(CAP)
    answers = _ask(opening, _body("uncapped", f"output={TOKENS}", stream=streams))
    bill = _bill(opening_provider)
    assert bill["violations"] == []
    assert bill["total_nanos"] <= opening.ledger_nanos() <= CAP_NANOS
    completed = [answer for answer in answers if answer.end == COMPLETED]
    assert len(completed) >= FITTING - 1
    assert {answer.tokens for answer in completed} == {TOKENS}
    _assert_settled(opening, answers)


def test_a_provider_that_shows_five_times_the_bound_is_cut_at_the_bound(
    opening: Stack, opening_provider: RunningSimulator
) -> None:
    directive = f"output={5 * TOKENS} fault=ignored_cap"
    answers = _ask(opening, _body("excessive", directive, stream=True, max_tokens=TOKENS))
    bill = _bill(opening_provider)
    ends = Counter(answer.end for answer in answers)
    assert ends.keys() == {CUT, REFUSED}
    assert 0 < ends[CUT] <= FITTING
    assert max(answer.tokens for answer in answers) <= TOKENS
    assert bill["requests"] == ends[CUT]
    assert bill["total_nanos"] <= CAP_NANOS + ends[CUT] * TAIL_NANOS
    assert bill["total_nanos"] <= opening.ledger_nanos() <= CAP_NANOS + ends[CUT] * TAIL_NANOS
    _assert_settled(opening, answers)


def test_a_provider_that_bills_five_times_the_bound_unseen_exceeds_by_what_was_in_flight(
    opening: Stack, opening_provider: RunningSimulator
) -> None:
    directive = f"output={TOKENS} {UNSEEN}"
    body = _body("unseen", directive, stream=True, max_tokens=TOKENS)
    answers = _ask(opening, body)
    bill, entries = _bill(opening_provider), opening.ledger()
    assert bill["total_nanos"] == opening.ledger_nanos()
    assert {(e.charge_nanos, e.overrun_nanos) for e in entries} == {
        (5 * REQUEST_NANOS, 4 * REQUEST_NANOS)
    }
    first_settled_at_ns = min(entry.settled_at_ns for entry in entries)
    in_flight = [entry for entry in entries if entry.admitted_at_ns <= first_settled_at_ns]
    # Nothing was admitted once the first answer had told the truth.
    assert len(entries) == len(in_flight) <= FITTING
    assert bill["total_nanos"] - CAP_NANOS <= sum(entry.charge_nanos for entry in in_flight)
    _assert_settled(opening, answers)


def test_what_was_billed_unseen_is_in_the_bound_of_the_next_request(
    opening: Stack, opening_provider: RunningSimulator
) -> None:
    directive = f"output={TOKENS} {UNSEEN}"
    body = _body("learned", directive, stream=True, max_tokens=TOKENS)
    _ask(opening, body)
    assert _bill(opening_provider)["total_nanos"] > CAP_NANOS
    before = len(opening.ledger())
    opening.budget(opening.scope(ScopeKind.ORGANIZATION), "100.00", version=1)
    secret = opening.key()[1]

    async def one_more() -> Answer:
        async with openai.AsyncOpenAI(base_url=opening.base_url, api_key=secret) as client:
            return await _one(client, body)

    assert asyncio.run(one_more()) == Answer(COMPLETED, TOKENS)
    later = opening.ledger()[before:]
    assert [(entry.charge_nanos, entry.overrun_nanos) for entry in later] == [
        (5 * REQUEST_NANOS, 0)
    ]
    record = opening.records()[-1]
    assert (record.calibration, record.bound_nanos) == (5, 5 * REQUEST_NANOS)
