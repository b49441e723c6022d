"""The official SDK, unmodified but for its address and key."""

from __future__ import annotations

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


def test_tools_and_several_choices(stack: Stack) -> None:
    client = _client(stack)
    called = client.chat.completions.create(
        model="sim-small",
        messages=HELLO,
        tools=[WEATHER],
        tool_choice={"type": "function", "function": {"name": "weather"}},
    )
    assert called.choices[0].message.tool_calls[0].function.name == "weather"
    several = client.chat.completions.create(model="sim-small", messages=HELLO, n=3, max_tokens=4)
    assert [choice.index for choice in several.choices] == [0, 1, 2]


def test_a_402_is_raised_once_and_not_repeated(stack: Stack, provider: RunningSimulator) -> None:
    key_id, secret = stack.key()
    stack.budget(stack.scope(ScopeKind.KEY, key_id), "0.04")
    client = openai.OpenAI(base_url=stack.base_url, api_key=secret, max_retries=2)
    with pytest.raises(openai.APIStatusError) as caught:
        client.chat.completions.create(model="sim-flat-0.05", messages=HELLO)
    assert caught.value.status_code == 402
    assert caught.value.body["code"] == "key_budget_exceeded"
    assert caught.value.response.headers["x-should-retry"] == "false"
    [record] = stack.records()
    assert (record.decision, record.http_status, record.charge_nanos) == ("refused", 402, 0)
    assert provider.bill()["requests"] == 0
    assert stack.open_reservations() == 0
    assert stack.ledger() == []


def test_the_list_of_models_is_what_the_key_may_use(stack: Stack) -> None:
    assert [model.id for model in _client(stack, allowed_models=("gpt-4o",)).models.list()] == [
        "gpt-4o"
    ]
