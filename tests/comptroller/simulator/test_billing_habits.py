"""Models that think, that write more than was asked for, that bill more than they show."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from statistics import median
from typing import Any

import httpx
import openai
import pytest

from comptroller.simulator import Fixed, LogNormal, RunningSimulator, SimulatorSettings, simulator
from core_rs import count_tokens

PATH = "/v1/chat/completions"


def body(directives: str, **members: object) -> dict[str, Any]:
    message = {"role": "user", "content": f"[[sim {directives}]]"}
    return {"model": "gpt-4o", "messages": [message], **members}


def frames(text: str) -> list[dict[str, Any]]:
    lines = [line.removeprefix("data: ") for line in text.splitlines() if line]
    return [json.loads(line) for line in lines if line != "[DONE]"]


async def answered(http: httpx.AsyncClient, asked: dict[str, Any]) -> tuple[str, str, Any]:
    """Give text, finish reason and usage of an answer, streamed or not."""
    if not asked.get("stream"):
        whole = (await http.post(PATH, json=asked)).json()
        [choice] = whole["choices"]
        return choice["message"]["content"], choice["finish_reason"], whole["usage"]
    read = frames((await http.post(PATH, json=asked)).text)
    choices = [choice for frame in read for choice in frame["choices"]]
    text = "".join(choice["delta"].get("content") or "" for choice in choices)
    return text, choices[-1]["finish_reason"], read[-1]["usage"]


def streamed(directives: str, stream: bool, **members: object) -> dict[str, Any]:
    if stream:
        members |= {"stream": True, "stream_options": {"include_usage": True}}
    return body(directives, **members)


@pytest.mark.parametrize("stream", [False, True])
async def test_an_answer_exceeds_its_maximum_so_many_times(
    http: httpx.AsyncClient, running: RunningSimulator, stream: bool
) -> None:
    asked = streamed("exceed=5 output=3", stream, max_tokens=20)
    text, finish_reason, usage = await answered(http, asked)
    assert count_tokens("o200k_base", text) == usage["completion_tokens"] == 100
    assert running.bill()["completion_tokens"] == 100
    assert finish_reason == "length"


async def test_without_a_maximum_nothing_is_exceeded(http: httpx.AsyncClient) -> None:
    _, finish_reason, usage = await answered(http, body("exceed=5 output=3"))
    assert (usage["completion_tokens"], finish_reason) == (3, "stop")


async def test_the_models_own_maximum_can_be_exceeded(http: httpx.AsyncClient) -> None:
    _, _, usage = await answered(http, body("exceed=2", max_tokens=16_384))
    assert usage["completion_tokens"] == 32_768


@pytest.mark.parametrize("stream", [False, True])
async def test_every_token_is_billed_so_many_times_and_shown_once(
    http: httpx.AsyncClient, running: RunningSimulator, stream: bool
) -> None:
    text, _, usage = await answered(http, streamed("overbill=5 output=9", stream, max_tokens=9))
    assert count_tokens("o200k_base", text) == 9
    assert usage["completion_tokens"] == running.bill()["completion_tokens"] == 45
    assert usage["completion_tokens_details"]["reasoning_tokens"] == 0


@pytest.mark.parametrize("stream", [False, True])
async def test_reasoning_is_billed_and_in_the_usage_and_in_no_chunk(
    http: httpx.AsyncClient, running: RunningSimulator, stream: bool
) -> None:
    text, finish_reason, usage = await answered(http, streamed("reasoning=40 output=9", stream))
    assert (count_tokens("o200k_base", text), finish_reason) == (9, "stop")
    assert usage["completion_tokens"] == running.bill()["completion_tokens"] == 49
    assert usage["completion_tokens_details"]["reasoning_tokens"] == 40


async def test_a_maximum_holds_for_reasoning_and_text_together(http: httpx.AsyncClient) -> None:
    for maximum, written in ((49, 9), (45, 5), (40, 0), (30, 0)):
        asked = body("reasoning=40 output=9", max_tokens=maximum)
        text, finish_reason, usage = await answered(http, asked)
        assert (count_tokens("o200k_base", text), finish_reason) == (written, "length")
        assert usage["completion_tokens"] == min(maximum, 49)
        reasoned = usage["completion_tokens_details"]["reasoning_tokens"]
        assert reasoned == min(maximum, 40)


async def test_every_choice_reasons(http: httpx.AsyncClient, running: RunningSimulator) -> None:
    usage = (await http.post(PATH, json=body("reasoning=7 output=3", n=4))).json()["usage"]
    assert usage["completion_tokens_details"]["reasoning_tokens"] == 28
    assert running.bill()["completion_tokens"] == 40


async def test_a_tool_is_called_after_reasoning(sdk: openai.AsyncOpenAI) -> None:
    function = {"name": "f", "parameters": {"properties": {"a": {"type": "integer"}}}}
    answers = [
        await sdk.chat.completions.create(
            **body(f"reasoning={reasoning}"),
            tools=[{"type": "function", "function": function}],  # type: ignore[list-item]
            tool_choice="required",
        )
        for reasoning in (0, 20)
    ]
    plain, thought = (answer.usage for answer in answers)
    assert plain is not None
    assert thought is not None
    assert thought.completion_tokens == plain.completion_tokens + 20
    assert answers[1].choices[0].message.tool_calls is not None


async def test_reasoning_has_a_pace_of_its_own(
    http: httpx.AsyncClient, running: RunningSimulator
) -> None:
    for stream in (False, True):
        asked = body("reasoning=50 reasoning_pace=200 output=5", stream=stream)
        answer = await http.post(PATH, json=asked)
        assert answer.elapsed.total_seconds() >= 0.24
    assert running.bill()["completion_tokens"] == 110


async def test_a_caller_that_leaves_pays_for_the_reasoning_so_far(
    http: httpx.AsyncClient, running: RunningSimulator
) -> None:
    asked = body("reasoning=10000 reasoning_pace=100 output=5", stream=True)
    async with http.stream("POST", PATH, json=asked):
        await running.generating(1)
    await running.idle()
    # At least one token had been generated, and the fixture's tail is three.
    assert 1 + 3 <= running.bill()["completion_tokens"] < 1_000


async def test_a_fault_counts_chunks_and_no_hidden_tokens(
    http: httpx.AsyncClient, running: RunningSimulator
) -> None:
    asked = body("reasoning=10 output=9 fault=end_mid_answer after_chunks=2", stream=True)
    read = frames((await http.post(PATH, json=asked)).text)
    # One frame opens the choice.
    assert len(read) == 1 + 2
    assert running.bill()["completion_tokens"] == 10 + 2


@asynccontextmanager
async def provider(settings: SimulatorSettings) -> AsyncIterator[httpx.AsyncClient]:
    async with (
        simulator(settings) as running,
        httpx.AsyncClient(base_url=running.address, timeout=60, verify=False) as client,
    ):
        yield client


async def test_a_provider_can_be_set_to_all_of_it() -> None:
    settings = SimulatorSettings(output=Fixed(8), reasoning=Fixed(4), overbill=3, exceed=2)
    async with provider(settings) as client:
        _, _, usage = await answered(client, body("pace=0", max_tokens=10))
        assert usage["completion_tokens"] == 3 * 20
        assert usage["completion_tokens_details"]["reasoning_tokens"] == 4
        # A request's own directives go before the settings.
        own = body("overbill=1 exceed=1 reasoning=0 output=2")
        assert (await answered(client, own))[2]["completion_tokens"] == 2


async def test_without_a_maximum_answers_are_as_long_as_they_are_drawn() -> None:
    async with provider(SimulatorSettings(output=LogNormal(300, 1.0))) as client:
        asked = {"model": "gpt-4o", "messages": [{"role": "user", "content": "hi"}]}
        usages = [(await answered(client, asked))[2] for _ in range(200)]
    lengths = [usage["completion_tokens"] for usage in usages]
    assert 220 < median(lengths) < 400
    assert max(lengths) > 1_000


@pytest.mark.parametrize(("pace", "least_s"), [(50, 0.48), (500, 0.048)])
async def test_a_stream_keeps_its_pace(pace: int, least_s: float) -> None:
    async with provider(SimulatorSettings(output=Fixed(25), pace=pace)) as client:
        answer = await client.post(PATH, json=body("latency_ms=0", stream=True))
        assert answer.elapsed.total_seconds() >= least_s
