"""The official SDK, unmodified but for its address and key."""

from __future__ import annotations

import asyncio
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import httpx
import openai
import pytest

from comptroller.simulator.running import RunningSimulator
from controlplane.limits.models import ScopeKind
from tests.stack import Stack

HELLO = [{"role": "user", "content": "Hello"}]
WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}


CALL_WEATHER = {"type": "function", "function": {"name": "weather"}}


def _client(stack: Stack, **options) -> openai.OpenAI:
    return openai.OpenAI(base_url=stack.base_url, api_key=stack.key(**options)[1])


def test_json_answers_carry_cost_and_version(stack: Stack, provider: RunningSimulator) -> None:
    raw = _client(stack).chat.completions.with_raw_response.create(
        model="sim-small", messages=HELLO, max_tokens=20
    )
    answer = raw.parse()
    # 8 input tokens at 0.15 and 20 output tokens at 0.60 per million.
    assert raw.headers["x-comptroller-cost"] == "0.0000132"
    assert raw.headers["x-comptroller-served-model"] == "sim-small"
    assert len(raw.headers["x-comptroller-policy-version"]) == 64
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (8, 20)
    assert stack.ledger_nanos() == provider.bill()["total_nanos"] == 13_200


def test_streams_hide_the_usage_frame_nobody_asked_for(stack: Stack) -> None:
    chunks = list(
        _client(stack).chat.completions.create(
            model="sim-small", messages=HELLO, max_tokens=7, stream=True
        )
    )
    assert all(chunk.choices and chunk.usage is None for chunk in chunks)
    [entry] = stack.ledger()
    assert (entry.output_tokens, entry.usage_source) == (7, "provider")


def test_streams_show_the_usage_frame_that_was_asked_for(stack: Stack) -> None:
    chunks = list(
        _client(stack).chat.completions.create(
            model="sim-small",
            messages=HELLO,
            max_tokens=7,
            stream=True,
            stream_options={"include_usage": True},
        )
    )
    assert chunks[-1].usage.completion_tokens == 7


async def test_the_asynchronous_client_streams(stack: Stack) -> None:
    async with openai.AsyncOpenAI(base_url=stack.base_url, api_key=stack.key()[1]) as client:
        stream = await client.chat.completions.create(
            model="sim-small", messages=HELLO, max_tokens=9, stream=True
        )
        texts = [chunk.choices[0].delta.content async for chunk in stream]
    assert sum(1 for text in texts if text) == 9


def test_with_streaming_response_leaves_the_reading_to_the_caller(stack: Stack) -> None:
    client = _client(stack)
    with client.chat.completions.with_streaming_response.create(
        model="sim-small", messages=HELLO, max_tokens=6, stream=True
    ) as answer:
        assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
        lines = [line for line in answer.iter_lines() if line]
    assert lines[-1] == "data: [DONE]"
    with client.chat.completions.with_streaming_response.create(
        model="sim-small", messages=HELLO, max_tokens=6
    ) as answer:
        assert answer.headers["x-comptroller-cost"] == "0.0000048"
        assert answer.parse().usage.completion_tokens == 6
    assert [entry.output_tokens for entry in stack.ledger()] == [6, 6]


def test_tools_and_several_choices(stack: Stack, provider: RunningSimulator) -> None:
    client = _client(stack)
    called = client.chat.completions.create(
        model="sim-small", messages=HELLO, tools=[WEATHER], tool_choice=CALL_WEATHER
    )
    [call] = called.choices[0].message.tool_calls
    assert (call.function.name, call.function.arguments) == ("weather", '{"city":"river"}')
    assert called.choices[0].finish_reason == "tool_calls"
    several = client.chat.completions.create(model="sim-small", messages=HELLO, n=3, max_tokens=4)
    assert [choice.index for choice in several.choices] == [0, 1, 2]
    assert several.usage.completion_tokens == 12
    assert stack.ledger_nanos() == provider.bill()["total_nanos"]


def test_tool_calls_and_several_choices_are_streamed(
    stack: Stack, provider: RunningSimulator
) -> None:
    client = _client(stack)
    arguments = ["", ""]
    for chunk in client.chat.completions.create(
        model="sim-small",
        messages=HELLO,
        tools=[WEATHER],
        tool_choice=CALL_WEATHER,
        n=2,
        max_tokens=40,
        stream=True,
    ):
        for choice in chunk.choices:
            for call in choice.delta.tool_calls or []:
                assert call.function.name in {"weather", None}
                arguments[choice.index] += call.function.arguments
    assert arguments == ['{"city":"river"}', '{"city":"river"}']
    pieces: Counter[int] = Counter()
    for chunk in client.chat.completions.create(
        model="sim-small", messages=HELLO, n=3, max_tokens=4, stream=True
    ):
        pieces.update(choice.index for choice in chunk.choices if choice.delta.content)
    assert pieces == {0: 4, 1: 4, 2: 4}
    assert {entry.usage_source for entry in stack.ledger()} == {"provider"}
    assert stack.ledger_nanos() == provider.bill()["total_nanos"]


def test_a_402_is_raised_once_and_not_repeated(stack: Stack, provider: RunningSimulator) -> None:
    key_id, secret = stack.key()
    stack.budget(stack.scope(ScopeKind.KEY, key_id), "0.04")
    arrived: list[httpx.Request] = []
    counted = httpx.Client(event_hooks={"request": [arrived.append]})
    with openai.OpenAI(
        base_url=stack.base_url, api_key=secret, max_retries=2, http_client=counted
    ) as client:
        for stream in (False, True):
            with pytest.raises(openai.APIStatusError) as caught:
                client.chat.completions.create(model="sim-flat-0.05", messages=HELLO, stream=stream)
            assert caught.value.status_code == 402
            assert caught.value.body["code"] == "key_budget_exceeded"
            assert caught.value.body["limit"]["requested"] == "0.05"
            assert caught.value.response.headers["x-should-retry"] == "false"
    assert len(arrived) == 2
    refused = [(each.decision, each.http_status, each.charge_nanos) for each in stack.records()]
    assert refused == [("refused", 402, 0)] * 2
    assert provider.bill()["requests"] == 0
    assert stack.open_reservations() == 0
    assert stack.ledger() == []


def test_a_429_of_the_provider_is_repeated_after_the_time_it_names(
    stack: Stack, provider: RunningSimulator
) -> None:
    provider.add_fault("rate_limited", times=1, retry_after_s=1)
    answer = _client(stack).chat.completions.create(model="sim-small", messages=HELLO, max_tokens=5)
    assert answer.usage.completion_tokens == 5
    seen = [(each.decision, each.http_status, each.usage_source) for each in stack.records()]
    assert seen == [("failed", 429, "none"), ("allowed", 200, "provider")]
    assert stack.ledger_nanos() == provider.bill()["total_nanos"] > 0


def test_one_client_is_used_by_many_at_once(stack: Stack, provider: RunningSimulator) -> None:
    client = _client(stack)

    def ask(number: int) -> int:
        if number % 2:
            answer = client.chat.completions.create(
                model="sim-small", messages=HELLO, max_tokens=number
            )
            return answer.usage.completion_tokens
        chunks = client.chat.completions.create(
            model="sim-small", messages=HELLO, max_tokens=number, stream=True
        )
        return sum(1 for chunk in chunks if chunk.choices[0].delta.content)

    asked = range(1, 41)
    with ThreadPoolExecutor(16) as pool:
        assert list(pool.map(ask, asked)) == list(asked)
    assert sorted(entry.output_tokens for entry in stack.ledger()) == list(asked)
    assert stack.ledger_nanos() == provider.bill()["total_nanos"]
    assert stack.open_reservations() == 0


async def test_one_asynchronous_client_is_used_by_many_at_once(
    stack: Stack, provider: RunningSimulator
) -> None:
    async with openai.AsyncOpenAI(base_url=stack.base_url, api_key=stack.key()[1]) as client:

        async def ask(number: int) -> int:
            if number % 2:
                answer = await client.chat.completions.create(
                    model="sim-small", messages=HELLO, max_tokens=number
                )
                return answer.usage.completion_tokens
            chunks = await client.chat.completions.create(
                model="sim-small", messages=HELLO, max_tokens=number, stream=True
            )
            return len([chunk async for chunk in chunks if chunk.choices[0].delta.content])

        asked = range(1, 41)
        assert await asyncio.gather(*map(ask, asked)) == list(asked)
    assert stack.ledger_nanos() == provider.bill()["total_nanos"]
    assert stack.open_reservations() == 0


def test_the_list_of_models_is_what_the_key_may_use(stack: Stack) -> None:
    assert [model.id for model in _client(stack, allowed_models=("gpt-4o",)).models.list()] == [
        "gpt-4o"
    ]
