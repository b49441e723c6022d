"""Strict JSON, chat facts and token counts, through the binding."""

import json
import threading

import pytest

import core_rs
from core_rs import WireError


def spans(body: bytes) -> dict[str, tuple[int, int]]:
    return {name: (start, end) for name, start, end in core_rs.scan_object(body)}


def test_spans_let_a_value_be_replaced_without_touching_the_rest() -> None:
    body = b'{"model" : "a",\n "messages":[{"role":"user"}], "n": 1.50}'
    start, end = spans(body)["model"]
    spliced = body[:start] + b'"b"' + body[end:]
    assert spliced == b'{"model" : "b",\n "messages":[{"role":"user"}], "n": 1.50}'
    assert [name for name, _, _ in core_rs.scan_object(body)] == ["model", "messages", "n"]


@pytest.mark.parametrize(
    ("body", "code", "param"),
    [
        (b"", "malformed_json", None),
        (b"{", "malformed_json", None),
        (b"{} x", "malformed_json", None),
        (b"\xef\xbb\xbf{}", "malformed_json", None),
        (b'{"a":"\xff"}', "malformed_json", None),
        (b'{"a":"\\ud800"}', "malformed_json", "a"),
        (b'{"a":NaN}', "malformed_json", "a"),
        (b'{"a":Infinity}', "malformed_json", "a"),
        (b"[]", "invalid_value", None),
        (b"null", "invalid_value", None),
        (b'{"a":1e400}', "invalid_value", "a"),
        (b'{"a":' + b"9" * 5000 + b"}", "invalid_value", "a"),
        (b'{"a\\u0000":1}', "invalid_value", None),
        (b'{"a":' * 64 + b"{}" + b"}" * 64, "json_too_deep", "a" + ".a" * 63),
        (b'{"a":{"b":1,"\\u0042":2}}', "duplicate_field", "a.b"),
    ],
)
def test_bad_bodies_raise_a_code_and_a_place(body: bytes, code: str, param: str | None) -> None:
    with pytest.raises(WireError) as raised:
        core_rs.scan_object(body)
    error = raised.value
    assert (error.code, error.param) == (code, param)
    assert str(error) == error.message
    assert 0 <= error.offset <= len(body)


def test_a_large_body_is_scanned_while_other_threads_run() -> None:
    body = json.dumps({"a": ["x" * 1000] * 4000}).encode()
    found: list[list[tuple[str, int, int]]] = []
    threads = [
        threading.Thread(target=lambda: found.append(core_rs.scan_object(body))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [[("a", 6, len(body) - 1)]] * 4


def test_chat_facts_read_the_spans_of_a_scanned_body() -> None:
    body = (
        b'{"model":"m","messages":[{"role":"user","content":[{"type":"image_url"}]}],'
        b'"tools":[{"type":"custom"}]}'
    )
    found = spans(body)
    facts = core_rs.chat_facts(body, found["messages"], tools=found["tools"])
    start, end = found["messages"]
    assert facts.message_count == 1
    assert facts.input_tokens_max == (end - start) + 4 + 3 + len(b'[{"type":"custom"}]') + 256
    assert facts.unbounded_parts == ("image_url",)


def test_an_offset_in_messages_counts_from_the_start_of_the_body() -> None:
    body = b'{"messages":[{"role":"user","content":7}]}'
    with pytest.raises(WireError) as raised:
        core_rs.chat_facts(body, spans(body)["messages"])
    error = raised.value
    assert (error.code, error.param) == ("invalid_value", "messages[0].content")
    assert body[error.offset : error.offset + 1] == b"7"


@pytest.mark.parametrize("span", [(0, 100), (5, 2)])
def test_a_span_outside_the_body_is_a_value_error(span: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="outside the body"):
        core_rs.chat_facts(b'{"messages":[]}', span)


def test_tokens_are_counted_with_the_vocabulary_of_the_model() -> None:
    assert core_rs.vocabulary_of("gpt-4o-mini") == "o200k_base"
    assert core_rs.vocabulary_of("gpt-4-turbo") == "cl100k_base"
    assert core_rs.vocabulary_of("claude-sonnet-4") is None
    core_rs.warm_vocabularies()
    assert core_rs.count_tokens("o200k_base", "お誕生日おめでとう") == 8
    assert core_rs.count_tokens("cl100k_base", "お誕生日おめでとう") == 9


def test_chat_tokens_are_texts_allowances_and_bytes_of_tools() -> None:
    messages = b'[{"role":"user","name":"ann","content":"tiktoken is great!"}]'
    alone = core_rs.count_chat_tokens("o200k_base", messages)
    assert alone == 1 + 1 + 6 + 4 + 1 + 3
    whole = core_rs.count_chat_tokens("o200k_base", messages, b"[{}]", b"{}")
    assert whole == alone + 4 + 256 + 2 + 64


def test_an_unknown_vocabulary_is_a_value_error() -> None:
    with pytest.raises(ValueError, match="unknown vocabulary"):
        core_rs.count_tokens("gpt2", "a")
    with pytest.raises(ValueError, match="unknown vocabulary"):
        core_rs.StreamMeter(strip_usage=True, vocabulary="gpt2")
