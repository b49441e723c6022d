"""What clients get: the official SDK, documents and streams, tools, stops, seeds."""

import json

import httpx
import openai
import pytest

from comptroller.simulator import RunningSimulator, simulator_in_thread
from comptroller.simulator.tokens import count_tokens

HELLO = {"role": "user", "content": "hello"}
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {
            "type": "object",
            "properties": {
                "city": {"type": "string"},
                "unit": {"enum": ["celsius", "fahrenheit"]},
                "days": {"type": "integer"},
                "place": {"type": "object", "properties": {"exact": {"type": "boolean"}}},
            },
        },
    },
}
WEATHER_ARGUMENTS = {"city": "river", "unit": "celsius", "days": 7, "place": {"exact": True}}


async def test_a_document_is_cut_at_max_tokens_and_says_so(sdk: openai.AsyncOpenAI) -> None:
    answer = await sdk.chat.completions.create(model="gpt-4o", messages=[HELLO], max_tokens=5)
    assert answer.choices[0].finish_reason == "length"
    assert count_tokens("o200k_base", answer.choices[0].message.content) == 5
    # 3 for the message, 1 each for "user" and "hello", 3 for the answer.
    assert answer.usage.prompt_tokens == 8
    assert answer.usage.completion_tokens == 5
    assert answer.usage.total_tokens == 13


async def test_an_answer_that_ends_before_its_maximum_stops(sdk: openai.AsyncOpenAI) -> None:
    message = {"role": "user", "content": "[[sim output=9]]"}
    answer = await sdk.chat.completions.create(
        model="gpt-4o", messages=[message], max_completion_tokens=10
    )
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage.completion_tokens == 9


async def test_each_content_chunk_of_a_stream_is_one_token(sdk: openai.AsyncOpenAI) -> None:
    stream = await sdk.chat.completions.create(
        model="gpt-4.1",
        messages=[HELLO],
        max_tokens=40,
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = [chunk async for chunk in stream]
    texts = [c.choices[0].delta.content for c in chunks if c.choices and c.choices[0].delta.content]
    assert len(texts) == 40
    assert count_tokens("o200k_base", "".join(texts)) == 40
    assert chunks[-1].choices == []
    assert chunks[-1].usage.completion_tokens == 40
    assert chunks[-2].choices[0].finish_reason == "length"


async def test_a_stream_shows_usage_only_when_asked(sdk: openai.AsyncOpenAI) -> None:
    stream = await sdk.chat.completions.create(
        model="gpt-4o", messages=[HELLO], max_tokens=2, stream=True
    )
    chunks = [chunk async for chunk in stream]
    assert len(chunks) == 4  # the role, two tokens, the end
    assert all(chunk.usage is None for chunk in chunks)


def test_the_blocking_sdk_reaches_a_simulator_in_a_thread() -> None:
    with (
        simulator_in_thread() as running,
        openai.OpenAI(
            base_url=running.base_url,
            api_key="any",
            max_retries=0,
            http_client=openai.DefaultHttpxClient(verify=False),
        ) as sdk,
    ):
        answer = sdk.chat.completions.create(model="sim-flat-0.05", messages=[HELLO])
        assert answer.choices[0].finish_reason == "stop"
        assert running.bill()["total"] == "0.05"
        assert "sim-small" in [model.id for model in sdk.models.list()]


@pytest.mark.parametrize("stream", [False, True])
async def test_choices_differ_and_are_all_counted(sdk: openai.AsyncOpenAI, stream: bool) -> None:
    asked = {"model": "gpt-4o", "messages": [HELLO], "n": 3, "max_tokens": 8}
    if stream:
        texts = ["", "", ""]
        async for chunk in await sdk.chat.completions.create(**asked, stream=True):
            for choice in chunk.choices:
                texts[choice.index] += choice.delta.content or ""
    else:
        answer = await sdk.chat.completions.create(**asked)
        texts = [choice.message.content for choice in answer.choices]
        assert answer.usage.completion_tokens == 24
    assert len(set(texts)) == 3
    assert [count_tokens("o200k_base", text) for text in texts] == [8, 8, 8]


async def test_equal_seeds_give_equal_answers(sdk: openai.AsyncOpenAI) -> None:
    async def text(seed: int | None) -> str:
        answer = await sdk.chat.completions.create(model="gpt-4o", messages=[HELLO], seed=seed)
        return answer.choices[0].message.content

    assert await text(0) == await text(0)
    assert await text(0) != await text(1)
    assert await text(None) != await text(None)


async def test_a_stop_sequence_ends_the_text_before_it(sdk: openai.AsyncOpenAI) -> None:
    asked = {"model": "gpt-4o", "messages": [HELLO], "seed": 4}
    whole = (await sdk.chat.completions.create(**asked)).choices[0].message.content
    stop = whole.split()[10]
    answer = await sdk.chat.completions.create(**asked, stop=[stop, "never said"])
    assert answer.choices[0].message.content == whole[: whole.index(stop)]
    assert answer.choices[0].finish_reason == "stop"


@pytest.mark.parametrize(
    ("choice", "content"),
    [
        ("required", "hello"),
        ({"type": "function", "function": {"name": "get_weather"}}, "hello"),
        ("auto", "please use get_weather"),
        ("auto", "[[sim tool=get_weather]]"),
    ],
)
async def test_a_tool_is_called_when_asked_for(
    sdk: openai.AsyncOpenAI, choice: object, content: str
) -> None:
    answer = await sdk.chat.completions.create(
        model="gpt-4o",
        messages=[{"role": "user", "content": content}],
        tools=[WEATHER],
        tool_choice=choice,
    )
    (call,) = answer.choices[0].message.tool_calls
    assert answer.choices[0].finish_reason == "tool_calls"
    assert call.function.name == "get_weather"
    assert json.loads(call.function.arguments) == WEATHER_ARGUMENTS
    expected = count_tokens("o200k_base", "get_weather")
    expected += count_tokens("o200k_base", call.function.arguments)
    assert answer.usage.completion_tokens == expected


@pytest.mark.parametrize("choice", ["none", "auto"])
async def test_no_tool_is_called_unasked(sdk: openai.AsyncOpenAI, choice: str) -> None:
    answer = await sdk.chat.completions.create(
        model="gpt-4o", messages=[HELLO], tools=[WEATHER], tool_choice=choice
    )
    assert answer.choices[0].message.tool_calls is None
    assert answer.choices[0].message.content


async def test_a_streamed_tool_call_adds_up(sdk: openai.AsyncOpenAI) -> None:
    async with sdk.chat.completions.stream(
        model="gpt-4o",
        messages=[{"role": "user", "content": "use get_weather"}],
        tools=[WEATHER],
        stream_options={"include_usage": True},
    ) as stream:
        answer = await stream.get_final_completion()
    (call,) = answer.choices[0].message.tool_calls
    assert json.loads(call.function.arguments) == WEATHER_ARGUMENTS
    assert answer.choices[0].finish_reason == "tool_calls"


async def test_pace_and_latency_hold(http: httpx.AsyncClient, running: RunningSimulator) -> None:
    content = "[[sim output=10 pace=100 latency_ms=100]]"
    body = {"model": "gpt-4o", "messages": [{"role": "user", "content": content}]}
    for stream, least_s in ((False, 0.2), (True, 0.19)):
        answer = await http.post("/v1/chat/completions", json={**body, "stream": stream})
        assert answer.elapsed.total_seconds() >= least_s
    assert running.bill()["completion_tokens"] == 20


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"", 400, "malformed_json"),
        (b"[]", 400, "invalid_value"),
        (b'{"model":"gpt-4o"}', 400, "invalid_value"),
        (b'{"model":"gpt-4o","messages":[]}', 400, "invalid_value"),
        (b'{"model":"gpt-9","messages":[{"role":"user","content":""}]}', 404, "model_not_found"),
        (b'{"model":"gpt-4o","max_tokens":0,"messages":[{"role":"user"}]}', 400, "invalid_value"),
        (b'{"model":"gpt-4o","n":129,"messages":[{"role":"user"}]}', 400, "invalid_value"),
        (
            b'{"model":"gpt-4o","max_tokens":16385,"messages":[{"role":"user"}]}',
            400,
            "invalid_value",
        ),
        (
            b'{"model":"gpt-4o","stream_options":{},"messages":[{"role":"user"}]}',
            400,
            "invalid_value",
        ),
        (
            b'{"model":"gpt-4o","messages":[{"role":"user","content":"[[sim what=1]]"}]}',
            400,
            "invalid_value",
        ),
        (
            b'{"model":"gpt-4o","messages":[{"role":"user","content":"\xff"}]}',
            400,
            "malformed_json",
        ),
    ],
)
async def test_a_bad_request_is_refused_and_not_billed(
    http: httpx.AsyncClient, running: RunningSimulator, body: bytes, status: int, code: str
) -> None:
    answer = await http.post("/v1/chat/completions", content=body)
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
    assert running.bill()["requests"] == 0


async def test_the_largest_values_are_taken(http: httpx.AsyncClient) -> None:
    body = {"model": "gpt-4o", "messages": [{"role": "user", "content": "[[sim output=1]]"}]}
    answer = await http.post("/v1/chat/completions", json={**body, "n": 128, "max_tokens": 16384})
    assert len(answer.json()["choices"]) == 128


async def test_a_prompt_over_the_context_is_refused(
    http: httpx.AsyncClient, running: RunningSimulator
) -> None:
    def body(words: int) -> dict[str, object]:
        content = "[[sim output=1]]" + " river" * words
        return {"model": "gpt-4o", "messages": [{"role": "user", "content": content}]}

    framing = (await http.post("/v1/chat/completions", json=body(0))).json()["usage"]
    room = 128_000 - framing["prompt_tokens"]
    assert (await http.post("/v1/chat/completions", json=body(room))).status_code == 200
    refused = await http.post("/v1/chat/completions", json=body(room + 1))
    assert refused.json()["error"]["code"] == "context_length_exceeded"
    assert running.bill()["requests"] == 2
