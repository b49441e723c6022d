"""The stream meter and whole answers, through the binding."""

import json

import pytest

from core_rs import StreamMeter, WireError, count_tokens, parse_chat_answer

DONE = b"data: [DONE]\n\n"


def frame(**members: object) -> bytes:
    return b"data: " + json.dumps(members, separators=(",", ":")).encode() + b"\n\n"


def content(text: str, finish_reason: str | None = None) -> bytes:
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": finish_reason}
    return frame(model="gpt-4o-2024", choices=[choice], usage=None)


USAGE = frame(choices=[], usage={"prompt_tokens": 9, "completion_tokens": 4, "total_tokens": 13})


def test_a_chunk_of_whole_frames_is_given_back_as_the_same_object() -> None:
    meter = StreamMeter(strip_usage=False)
    chunk = content("Hello") + content(" you")
    assert meter.feed(chunk) is chunk


def test_a_stream_is_metered_and_stripped() -> None:
    meter = StreamMeter(strip_usage=True, vocabulary="o200k_base")
    assert not meter.has_generated
    stream = content("Hello") + content(" wörld", "stop") + USAGE + DONE
    relayed = b"".join(meter.feed(stream[at : at + 7]) for at in range(0, len(stream), 7))
    relayed += meter.finish()
    kept = content("Hello") + content(" wörld", "stop") + DONE
    assert relayed == kept.replace(b',"usage":null', b"")
    assert meter.usage is not None
    assert (meter.usage.input_tokens, meter.usage.output_tokens) == (9, 4)
    assert (meter.usage.cache_read_tokens, meter.usage.reasoning_tokens) == (0, 0)
    assert (meter.model, meter.finish_reasons) == ("gpt-4o-2024", {0: "stop"})
    assert (meter.is_done, meter.failure, meter.usage_fault) == (True, None, None)
    assert meter.has_generated
    assert meter.generated_bytes == len("Hello wörld".encode())
    assert meter.generated_tokens() == count_tokens("o200k_base", "Hello wörld")


def test_an_untrusted_frame_stops_the_relay_and_says_why() -> None:
    meter = StreamMeter(strip_usage=False)
    assert meter.feed(content("a") + b"data: {oops}\n\n" + content("b")) == content("a")
    assert meter.failure == "malformed_frame"
    with pytest.raises(WireError) as raised:
        meter.feed(content("c"))
    assert (raised.value.code, raised.value.param) == ("upstream_bad_response", None)
    with pytest.raises(WireError):
        meter.finish()


def test_a_frame_without_end_is_bounded() -> None:
    meter = StreamMeter(strip_usage=False)
    assert meter.feed(b"data: " + b"x" * (1 << 20)) == b""
    assert meter.failure == "frame_too_large"
    with pytest.raises(WireError) as raised:
        meter.feed(b"x")
    assert raised.value.code == "upstream_response_too_large"


def test_a_usage_that_cannot_be_true_is_flagged_and_not_taken() -> None:
    meter = StreamMeter(strip_usage=False)
    meter.feed(frame(choices=[], usage={"prompt_tokens": 1, "completion_tokens": -1}))
    assert (meter.usage, meter.usage_fault) == (None, "negative")


def test_an_error_in_the_stream_is_shown_as_json() -> None:
    meter = StreamMeter(strip_usage=True)
    meter.feed(frame(error={"code": "overloaded"}))
    assert meter.upstream_error is not None
    assert json.loads(meter.upstream_error) == {"code": "overloaded"}
    assert not meter.is_done


def test_a_whole_answer_is_counted_only_without_usage() -> None:
    choice = {"index": 0, "message": {"content": "Hello world"}, "finish_reason": "stop"}
    usage = {"prompt_tokens": 3, "completion_tokens": 2}
    answer = parse_chat_answer(json.dumps({"choices": [choice], "usage": usage}).encode())
    assert answer.usage is not None
    assert (answer.usage.output_tokens, answer.generated_tokens) == (2, None)
    assert (answer.finish_reasons, answer.model, answer.upstream_error) == ({0: "stop"}, None, None)
    bare = parse_chat_answer(json.dumps({"choices": [choice]}).encode(), "o200k_base")
    assert (bare.usage, bare.generated_tokens, bare.generated_bytes) == (None, 2, 11)
    assert parse_chat_answer(b'{"error":{"a":1}}').upstream_error == b'{"a":1}'


def test_an_answer_that_is_no_object_is_a_bad_response() -> None:
    with pytest.raises(WireError) as raised:
        parse_chat_answer(b"<html>")
    assert raised.value.code == "upstream_bad_response"
