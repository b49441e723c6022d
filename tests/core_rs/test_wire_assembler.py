"""Answers put together from streams, through the binding and against a provider over real HTTP."""

import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import httpx
import openai
import pytest
import pytest_asyncio
from openai.types.chat import ChatCompletion

from comptroller.simulator import RunningSimulator, SimulatorSettings, simulator
from controlplane.clock import ManualClock
from core_rs import AnswerAssembler, WireError

TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "parameters": {"properties": {"city": {"type": "string"}, "days": {"type": "integer"}}},
        },
    }
]
USER = {"role": "user", "content": "hello"}
REQUESTS: list[dict[str, Any]] = [
    {},
    {"n": 3, "max_tokens": 20},
    {"n": 2, "tools": TOOLS, "tool_choice": "required"},
    {"tools": TOOLS, "tool_choice": "required", "max_tokens": 6},
    {"stop": "river"},
    {"messages": [{"role": "user", "content": "[[sim fault=split_utf8 output=9]]"}]},
]


def assembler(choices: int = 1, bytes_max: int = 1 << 20) -> AnswerAssembler:
    return AnswerAssembler(
        answer_id="ours", created_s=7, model="asked", choices=choices, bytes_max=bytes_max
    )


def content(text: str, finish_reason: str | None = None) -> bytes:
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": finish_reason}
    return b"data: " + json.dumps({"id": "c1", "choices": [choice]}).encode() + b"\n\n"


@pytest_asyncio.fixture
async def twins() -> AsyncIterator[tuple[RunningSimulator, RunningSimulator]]:
    """Two providers that answer alike: the first request of one is the first of the other."""
    clock = ManualClock(datetime(2026, 3, 1, tzinfo=UTC))
    async with (
        simulator(SimulatorSettings(seed=5), clock=clock) as one,
        simulator(SimulatorSettings(seed=5), clock=clock) as other,
    ):
        yield one, other


@pytest.mark.parametrize("members", REQUESTS)
async def test_a_streamed_answer_put_together_is_the_plain_one(
    twins: tuple[RunningSimulator, RunningSimulator], members: dict[str, Any]
) -> None:
    asked = {"model": "gpt-4o", "messages": [USER], **members}
    streamed = {**asked, "stream": True, "stream_options": {"include_usage": True}}
    assembled = assembler(choices=members.get("n", 1))
    async with httpx.AsyncClient(timeout=60, verify=False) as client:
        plain = await client.post(f"{twins[0].base_url}/chat/completions", json=asked)
        url = f"{twins[1].base_url}/chat/completions"
        async with client.stream("POST", url, json=streamed) as answer:
            async for chunk in answer.aiter_raw():
                assembled.feed(chunk)
    whole = json.loads(assembled.finish())
    assert whole == plain.json()
    read = ChatCompletion.model_validate(whole, strict=False)
    assert [choice.index for choice in read.choices] == list(range(members.get("n", 1)))
    assert read.usage is not None
    assert read.usage.completion_tokens > 0
    assert twins[0].bill()["total_nanos"] == twins[1].bill()["total_nanos"]


async def test_what_the_sdk_reads_of_both_is_the_same(
    twins: tuple[RunningSimulator, RunningSimulator],
) -> None:
    clients = [
        openai.AsyncOpenAI(
            base_url=each.base_url,
            api_key="any",
            http_client=openai.DefaultAsyncHttpxClient(verify=False),
        )
        for each in twins
    ]
    async with clients[0] as one, clients[1] as other:
        plain = await one.chat.completions.create(
            model="gpt-4o", messages=[{"role": "user", "content": "hi"}], seed=3
        )
        assembled = assembler()
        async with other.chat.completions.with_streaming_response.create(
            model="gpt-4o",
            messages=[{"role": "user", "content": "hi"}],
            seed=3,
            stream=True,
            stream_options={"include_usage": True},
        ) as answer:
            async for chunk in answer.iter_bytes():
                assembled.feed(chunk)
    assert ChatCompletion.model_validate_json(assembled.finish()) == plain


def test_a_cut_answer_is_one_the_sdk_reads() -> None:
    assembled = assembler()
    assembled.feed(content("Hello") + content(" you")[:30])
    cut = ChatCompletion.model_validate_json(assembled.finish_cut(input_tokens=9, output_tokens=2))
    assert cut.choices[0].message.content == "Hello"
    assert cut.choices[0].finish_reason == "length"
    assert (cut.id, cut.created, cut.model) == ("c1", 7, "asked")
    assert cut.usage is not None
    assert (cut.usage.prompt_tokens, cut.usage.completion_tokens) == (9, 2)
    assert cut.usage.total_tokens == 11


def test_a_frame_that_cannot_be_read_fails_for_good_and_leaves_what_came_before() -> None:
    assembled = assembler()
    with pytest.raises(WireError) as raised:
        assembled.feed(content("a") + b"data: {oops}\n\n")
    assert raised.value.code == "upstream_bad_response"
    with pytest.raises(WireError):
        assembled.feed(content("b"))
    with pytest.raises(WireError):
        assembled.finish()
    cut = json.loads(assembled.finish_cut(input_tokens=1, output_tokens=1))
    assert cut["choices"][0]["message"]["content"] == "a"


def test_an_answer_over_its_maximum_is_too_large() -> None:
    kept = assembler()
    kept.feed(content("x" * 5_000))
    assert 5_000 < kept.kept_bytes < 7_000
    assembler(bytes_max=kept.kept_bytes).feed(content("x" * 5_000))
    with pytest.raises(WireError) as raised:
        assembler(bytes_max=kept.kept_bytes - 1).feed(content("x" * 5_000))
    assert raised.value.code == "upstream_response_too_large"


def test_choices_are_1_to_256() -> None:
    assembler(choices=256)
    for choices in (0, 257):
        with pytest.raises(ValueError, match="choices must be 1 to 256"):
            assembler(choices=choices)
