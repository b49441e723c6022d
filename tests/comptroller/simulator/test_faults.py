"""Every fault, as a client sees it, and what it does to the bill."""

import asyncio
import gzip
import json
from typing import Any

import httpx
import openai
import pytest

from comptroller.simulator import RunningSimulator
from comptroller.simulator.faults import RULES_MAX, Fault, FaultRule, FaultRules, fault_rule

PATH = "/v1/chat/completions"


def body(fault: str, *, stream: bool = False, output: int = 10) -> dict[str, Any]:
    content = f"[[sim output={output} fault={fault}]]"
    messages = [{"role": "user", "content": content}]
    asked = {"model": "gpt-4o", "messages": messages, "stream": stream}
    return asked | ({"stream_options": {"include_usage": True}} if stream else {})


async def collect(http: httpx.AsyncClient, asked: dict[str, Any], parts: list[bytes]) -> None:
    async with http.stream("POST", PATH, json=asked) as answer:
        async for part in answer.aiter_raw():
            parts.append(part)  # noqa: PERF401 - kept when the stream breaks off


async def raw(http: httpx.AsyncClient, asked: dict[str, Any]) -> tuple[httpx.Response, bytes]:
    async with http.stream("POST", PATH, json=asked) as answer:
        return answer, b"".join([part async for part in answer.aiter_raw()])


def frames(body: bytes) -> list[bytes]:
    return [line[6:] for line in body.split(b"\n") if line.startswith(b"data: ")]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("fault", "status", "retry_after"),
    [
        ("unauthorized", 401, None),
        ("rate_limited", 429, "1"),
        ("rate_limited retry_after_s=7", 429, "7"),
        ("server_error", 500, None),
        ("unavailable retry_after_s=2", 503, "2"),
        ("status status=418", 418, None),
    ],
)
async def test_an_error_status_is_answered_and_not_billed(
    http: httpx.AsyncClient,
    running: RunningSimulator,
    fault: str,
    status: int,
    retry_after: str | None,
    stream: bool,
) -> None:
    answer = await http.post(PATH, json=body(fault, stream=stream))
    assert answer.status_code == status
    assert answer.headers.get("retry-after") == retry_after
    assert answer.json()["error"]["code"] == fault.split(maxsplit=1)[0]
    assert running.bill()["requests"] == 0
    assert running.requests()[0]["fate"] == f"fault:{fault.split(maxsplit=1)[0]}"


async def test_the_sdk_raises_its_own_error_for_a_status(sdk: openai.AsyncOpenAI) -> None:
    for fault, error in (
        ("rate_limited", openai.RateLimitError),
        ("unauthorized", openai.AuthenticationError),
        ("server_error", openai.InternalServerError),
    ):
        with pytest.raises(error):
            await sdk.chat.completions.create(**body(fault))


@pytest.mark.parametrize("fault", ["server_error billed=true", "reset_before_head billed=true"])
async def test_a_fault_may_be_billed_as_a_whole_answer(
    http: httpx.AsyncClient, running: RunningSimulator, fault: str
) -> None:
    if fault.startswith("reset"):
        with pytest.raises(httpx.ReadError):
            await http.post(PATH, json=body(fault, stream=True))
    else:
        assert (await http.post(PATH, json=body(fault, stream=True))).status_code == 500
    await running.idle()
    assert running.bill()["completion_tokens"] == 10
    assert running.bill()["open_requests"] == 0


async def test_a_redirect_names_its_location(http: httpx.AsyncClient) -> None:
    answer = await http.post(PATH, json=body("redirect location=http://127.0.0.1:9/secret"))
    assert (answer.status_code, answer.headers["location"]) == (307, "http://127.0.0.1:9/secret")


async def test_a_reset_before_the_head_is_a_tcp_reset(
    http: httpx.AsyncClient, running: RunningSimulator
) -> None:
    content = json.dumps(body("reset_before_head")).encode()
    reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
    writer.write(
        b"POST %b HTTP/1.1\r\nhost: a\r\ncontent-length: %d\r\n\r\n" % (PATH.encode(), len(content))
    )
    writer.write(content)
    with pytest.raises(ConnectionResetError):
        await reader.read()
    writer.close()
    assert running.bill()["requests"] == 0


@pytest.mark.parametrize(
    ("fault", "error"),
    [("reset_mid_answer", httpx.ReadError), ("close_mid_answer", httpx.RemoteProtocolError)],
)
async def test_a_stream_breaks_off_after_its_chunks(
    http: httpx.AsyncClient, running: RunningSimulator, fault: str, error: type[Exception]
) -> None:
    parts: list[bytes] = []
    with pytest.raises(error):
        await collect(http, body(f"{fault} after_chunks=4", stream=True), parts)
    assert len(frames(b"".join(parts))) == 1 + 4
    await running.idle()
    assert running.bill()["completion_tokens"] == 4


@pytest.mark.parametrize(
    ("fault", "error"),
    [("reset_mid_answer", httpx.ReadError), ("close_mid_answer", httpx.RemoteProtocolError)],
)
async def test_a_document_breaks_off_and_is_billed_in_full(
    http: httpx.AsyncClient, running: RunningSimulator, fault: str, error: type[Exception]
) -> None:
    with pytest.raises(error):
        await http.post(PATH, json=body(f"{fault} after_chunks=20"))
    await running.idle()
    assert running.bill()["completion_tokens"] == 10


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("fault", ["stall_before_head", "stall_mid_answer"])
async def test_a_stall_lasts_until_the_client_leaves(
    http: httpx.AsyncClient, running: RunningSimulator, fault: str, stream: bool, leave: Any
) -> None:
    await leave(http.post(PATH, json=body(fault, stream=stream)))
    assert running.requests()[0]["is_left"]
    assert running.bill()["open_requests"] == 0


async def test_a_stall_with_a_time_goes_on_afterwards(http: httpx.AsyncClient) -> None:
    asked = body("stall_mid_answer after_chunks=2 delay_ms=100", stream=True)
    answer = await http.post(PATH, json=asked)
    assert frames(answer.content)[-1] == b"[DONE]"
    assert len(frames(answer.content)) == 1 + 10 + 1 + 1 + 1


async def test_latency_comes_on_top(http: httpx.AsyncClient) -> None:
    answer = await http.post(PATH, json=body("latency delay_ms=150"))
    assert answer.elapsed.total_seconds() >= 0.15
    assert answer.status_code == 200


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("fault", "shown"),
    [("missing_usage", None), ("negative_usage", -1), ("absurd_usage", 10**15)],
)
async def test_usage_lies_and_the_bill_does_not(
    http: httpx.AsyncClient, running: RunningSimulator, fault: str, shown: int | None, stream: bool
) -> None:
    answer = await http.post(PATH, json=body(fault, stream=stream))
    found = [json.loads(frame) for frame in frames(answer.content)[:-1]] or [answer.json()]
    usages = [frame["usage"]["completion_tokens"] for frame in found if frame.get("usage")]
    assert usages == ([] if shown is None else [shown])
    assert running.bill()["completion_tokens"] == 10


async def test_a_stream_has_a_broken_frame_and_goes_on(http: httpx.AsyncClient) -> None:
    answer = await http.post(PATH, json=body("bad_json after_chunks=3", stream=True))
    broken = frames(answer.content)[4]
    with pytest.raises(json.JSONDecodeError):
        json.loads(broken)
    assert frames(answer.content)[-1] == b"[DONE]"


async def test_a_document_is_cut_where_no_json_ends(http: httpx.AsyncClient) -> None:
    answer = await http.post(PATH, json=body("bad_json"))
    assert answer.status_code == 200
    with pytest.raises(json.JSONDecodeError):
        answer.json()


@pytest.mark.parametrize("stream", [False, True])
async def test_an_answer_is_not_utf8(http: httpx.AsyncClient, stream: bool) -> None:
    answer = await http.post(PATH, json=body("invalid_utf8", stream=stream))
    with pytest.raises(UnicodeDecodeError):
        answer.content.decode()


@pytest.mark.parametrize("stream", [False, True])
async def test_characters_are_split_and_whole_again(http: httpx.AsyncClient, stream: bool) -> None:
    halves = 0
    content = b""
    async with http.stream("POST", PATH, json=body("split_utf8", stream=stream)) as answer:
        async for part in answer.aiter_raw():
            halves += not _is_utf8(part)
            content += part
    assert halves >= 2
    assert not content.decode().isascii()


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


async def test_a_line_is_as_long_as_asked(
    http: httpx.AsyncClient, running: RunningSimulator
) -> None:
    answer = await http.post(PATH, json=body("long_line bytes=300000", stream=True))
    longest = max(frames(answer.content), key=len)
    assert len(json.loads(longest)["choices"][0]["delta"]["content"]) == 300_000
    assert running.bill()["completion_tokens"] == 10


async def test_a_stream_is_as_huge_as_asked(
    http: httpx.AsyncClient, running: RunningSimulator
) -> None:
    answer = await http.post(PATH, json=body("huge_answer bytes=3000000", stream=True))
    assert len(answer.content) > 3_000_000
    assert max(map(len, frames(answer.content))) < 20_000
    assert running.bill()["completion_tokens"] == 10


async def test_a_huge_document_is_valid_json(http: httpx.AsyncClient) -> None:
    answer = await http.post(PATH, json=body("huge_answer bytes=3000000"))
    assert len(answer.content) > 3_000_000
    assert answer.json()["usage"]["completion_tokens"] == 10


async def test_a_huge_answer_ends_when_nobody_reads(
    http: httpx.AsyncClient, running: RunningSimulator
) -> None:
    asked = body("huge_answer bytes=1073741824", stream=True)
    async with http.stream("POST", PATH, json=asked) as answer:
        await anext(answer.aiter_raw())
    await running.idle()
    assert running.requests()[0]["is_left"]


@pytest.mark.parametrize("stream", [False, True])
async def test_an_answer_is_compressed_though_nobody_asked(
    http: httpx.AsyncClient, stream: bool
) -> None:
    http.headers["accept-encoding"] = "identity"
    answer, content = await raw(http, body("gzip", stream=stream))
    assert answer.headers["content-encoding"] == "gzip"
    assert b'"chat.completion' in gzip.decompress(content)


@pytest.mark.parametrize("stream", [False, True])
async def test_a_content_type_is_wrong(http: httpx.AsyncClient, stream: bool) -> None:
    answer = await http.post(PATH, json=body("wrong_content_type", stream=stream))
    assert answer.headers["content-type"] == "text/html; charset=utf-8"


async def test_the_sdk_raises_on_an_error_in_the_middle(sdk: openai.AsyncOpenAI) -> None:
    stream = await sdk.chat.completions.create(**body("error_mid_stream", stream=True))
    with pytest.raises(openai.APIError, match="in the middle of the stream"):
        async for _ in stream:
            pass


async def test_a_fault_after_the_last_chunk_strikes_before_the_end(http: httpx.AsyncClient) -> None:
    with pytest.raises(httpx.RemoteProtocolError):
        await http.post(PATH, json=body("close_mid_answer after_chunks=99", stream=True))


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("fault", "prompt_tokens", "completion_tokens"),
    [
        (f"absurd_usage tokens={2**62}", None, 2**62),
        ("impossible_usage", 10**6, 10),
        ("impossible_usage tokens=5000", 5000, 10),
    ],
)
async def test_usage_shows_the_count_that_was_asked_for(
    http: httpx.AsyncClient,
    running: RunningSimulator,
    fault: str,
    prompt_tokens: int | None,
    completion_tokens: int,
    stream: bool,
) -> None:
    shown = _usages(await http.post(PATH, json=body(fault, stream=stream)))
    billed = running.bill()["prompt_tokens"]
    assert [(each["prompt_tokens"], each["completion_tokens"]) for each in shown] == [
        (prompt_tokens or billed, completion_tokens)
    ]
    assert running.bill()["completion_tokens"] == 10


@pytest.mark.parametrize("stream", [False, True])
async def test_usage_is_text(http: httpx.AsyncClient, stream: bool) -> None:
    [shown] = _usages(await http.post(PATH, json=body("string_usage", stream=stream)))
    assert {type(value) for value in shown.values()} == {str}


async def test_usage_comes_too_early_or_twice(http: httpx.AsyncClient) -> None:
    early = await http.post(PATH, json=body("early_usage after_chunks=3", stream=True))
    assert [each["completion_tokens"] for each in _usages(early)] == [3]
    assert b'"usage":{' in frames(early.content)[4]
    assert frames(early.content)[-1] == b"[DONE]"
    double = await http.post(PATH, json=body("double_usage", stream=True))
    assert [each["completion_tokens"] for each in _usages(double)] == [10, 10]


def _usages(answer: httpx.Response) -> list[dict[str, Any]]:
    found = [json.loads(each) for each in frames(answer.content) if each != b"[DONE]"]
    return [each["usage"] for each in found or [answer.json()] if each.get("usage")]


@pytest.mark.parametrize(
    ("fault", "has_done", "finishes"), [("unfinished", True, 0), ("missing_done", False, 1)]
)
async def test_a_stream_lacks_a_part_of_its_end(
    http: httpx.AsyncClient, fault: str, has_done: bool, finishes: int
) -> None:
    answer = await http.post(PATH, json=body(fault, stream=True))
    assert (frames(answer.content)[-1] == b"[DONE]") == has_done
    assert answer.content.count(b'"finish_reason":"stop"') == finishes
    assert len(_usages(answer)) == 1


@pytest.mark.parametrize("stream", [False, True])
async def test_a_body_ends_in_the_middle_as_if_it_were_whole(
    http: httpx.AsyncClient, running: RunningSimulator, stream: bool
) -> None:
    answer = await http.post(PATH, json=body("end_mid_answer after_chunks=4", stream=stream))
    assert answer.status_code == 200
    if stream:
        assert len(frames(answer.content)) == 1 + 4
        assert running.bill()["completion_tokens"] == 4
    else:
        assert len(answer.content) == 4
        assert running.bill()["completion_tokens"] == 10


async def test_a_stream_stalls_after_its_last_event(
    http: httpx.AsyncClient, running: RunningSimulator
) -> None:
    async with http.stream("POST", PATH, json=body("stall_after_done", stream=True)) as answer:
        async for line in answer.aiter_lines():
            if line == "data: [DONE]":
                break
        assert running.bill()["open_requests"] == 1
    await running.idle()
    assert running.bill()["completion_tokens"] == 10


@pytest.mark.parametrize("stream", [False, True])
async def test_an_answer_drips(http: httpx.AsyncClient, stream: bool) -> None:
    asked = body("slow_drip delay_ms=1", stream=stream, output=2)
    async with http.stream("POST", PATH, json=asked) as answer:
        sizes = [len(part) async for part in answer.aiter_raw()]
    assert sizes.count(1) > 50


@pytest.mark.parametrize("stream", [False, True])
async def test_an_error_comes_as_an_answer(
    http: httpx.AsyncClient, running: RunningSimulator, stream: bool
) -> None:
    answer = await http.post(PATH, json=body("error_as_answer", stream=stream))
    assert (answer.status_code, answer.json()["error"]["code"]) == (200, "error_as_answer")
    assert running.bill()["requests"] == 0


async def test_an_error_is_compressed_or_a_web_page(http: httpx.AsyncClient) -> None:
    http.headers["accept-encoding"] = "identity"
    packed, content = await raw(http, body("server_error gzip=true"))
    assert (packed.status_code, packed.headers["content-encoding"]) == (500, "gzip")
    assert json.loads(gzip.decompress(content))["error"]["code"] == "server_error"
    page = await http.post(PATH, json=body("status status=400 html=true"))
    assert (page.status_code, page.headers["content-type"]) == (400, "text/html")
    assert page.content.startswith(b"<html>")


@pytest.mark.parametrize("stream", [False, True])
async def test_an_answer_tells_of_the_account(http: httpx.AsyncClient, stream: bool) -> None:
    answer = await http.post(PATH, json=body("account_headers", stream=stream))
    assert answer.headers["openai-organization"] == "org-simulator"
    assert {"set-cookie", "x-ratelimit-remaining-requests"} <= answer.headers.keys()


@pytest.mark.parametrize("stream", [False, True])
async def test_the_cap_of_a_request_is_ignored_and_all_is_billed(
    http: httpx.AsyncClient, running: RunningSimulator, stream: bool
) -> None:
    asked = {**body("ignored_cap", stream=stream, output=30), "max_tokens": 5}
    [shown] = _usages(await http.post(PATH, json=asked))
    assert shown["completion_tokens"] == running.bill()["completion_tokens"] == 30


async def test_a_reset_forgets_the_history(
    http: httpx.AsyncClient, running: RunningSimulator
) -> None:
    await http.post(PATH, json=body("latency"))
    assert len(running.requests()) == 1
    running.reset()
    assert running.requests() == []


async def test_a_rule_strikes_its_model_as_often_as_it_says(http: httpx.AsyncClient) -> None:
    rule = {"fault": "server_error", "model": "gpt-4o-mini", "times": 2}
    added = await http.post("/_simulator/faults", json=rule)
    assert added.json()["faults"][0]["times"] == 2
    directed = await http.post(PATH, json={**body("missing_usage"), "model": "gpt-4o-mini"})
    assert directed.status_code == 200  # a directive goes before a rule and does not use it up
    plain = [{"role": "user", "content": "hello"}]
    for model, status in (
        ("gpt-4o", 200),
        ("gpt-4o-mini", 500),
        ("gpt-4o-mini", 500),
        ("gpt-4o-mini", 200),
    ):
        answer = await http.post(PATH, json={"model": model, "messages": plain})
        assert answer.status_code == status
    assert (await http.get("/_simulator/faults")).json() == {"faults": []}


async def test_rules_can_be_cleared(http: httpx.AsyncClient, running: RunningSimulator) -> None:
    running.add_fault("unavailable")
    assert (await http.delete("/_simulator/faults")).json() == {"faults": []}
    asked = {"model": "gpt-4o", "messages": [{"role": "user", "content": "hello"}]}
    assert (await http.post(PATH, json=asked)).status_code == 200


@pytest.mark.parametrize(
    "rule",
    [
        {},
        {"fault": "earthquake"},
        {"fault": "stall_before_head", "times": 0},
        {"fault": "status", "status": 200},
        {"fault": "status", "colour": "red"},
        {"fault": "redirect", "location": "a\r\nset-cookie: b"},
        {"fault": "latency", "delay_ms": -1},
        {"fault": "server_error", "billed": "perhaps"},
        {"fault": "server_error", "gzip": "perhaps"},
        {"fault": "absurd_usage", "tokens": 1 << 65},
    ],
)
async def test_a_rule_that_makes_no_sense_is_refused(
    http: httpx.AsyncClient, rule: dict[str, Any]
) -> None:
    answer = await http.post("/_simulator/faults", json=rule)
    assert answer.status_code == 400
    assert (await http.get("/_simulator/faults")).json() == {"faults": []}


def test_the_number_of_rules_is_bounded() -> None:
    rules = FaultRules()
    for _ in range(RULES_MAX):
        rules.add(FaultRule(Fault.LATENCY))
    with pytest.raises(ValueError, match="already"):
        rules.add(FaultRule(Fault.LATENCY))
    assert len(rules.shown()) == RULES_MAX


def test_every_fault_can_be_named() -> None:
    for fault in Fault:
        assert fault_rule(str(fault), {}).fault is fault
