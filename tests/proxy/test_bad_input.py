"""Requests that are wrong in themselves: a clear answer, nothing sent, nothing held, one record."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from comptroller.simulator.running import RunningSimulator
from tests.proxy.untouched import assert_untouched
from tests.stack import Stack

HELLO = [{"role": "user", "content": "Hello"}]
GOOD: dict[str, Any] = {"model": "sim-small", "messages": HELLO}
TYPES = {400: "invalid_request_error", 403: "permission_error", 404: "invalid_request_error"}


def _post(stack: Stack, secret: str, content: bytes) -> httpx.Response:
    return httpx.post(
        f"{stack.base_url}/chat/completions",
        content=content,
        headers={"authorization": f"Bearer {secret}", "content-type": "application/json"},
        timeout=30,
    )


def _with(**fields: Any) -> bytes:
    return json.dumps({**GOOD, **fields}).encode()


def _raw(members: str) -> bytes:
    """Write a good body with further members, which may be anything."""
    return f"{json.dumps(GOOD)[:-1]}, {members}}}".encode()


def _part(**members: Any) -> bytes:
    """Write a body whose last message has one part of this form."""
    return _with(messages=[*HELLO, {"role": "user", "content": [members]}])


def _nested(levels: int) -> bytes:
    """Write a body so many levels deep."""
    return _raw('"metadata": ' + "[" * (levels - 1) + "]" * (levels - 1))


BROKEN_JSON = [
    (b"", "malformed_json"),
    (b" \r\n", "malformed_json"),
    (_with()[:-1], "malformed_json"),
    (_with()[:20], "malformed_json"),
    (_with() + b" x", "malformed_json"),
    (_with() + b"\x00", "malformed_json"),
    (_with() * 2, "malformed_json"),
    (b"[" + _with() + b"]", "invalid_value"),
    (b"[]", "invalid_value"),
    (b"null", "invalid_value"),
    (b'"model"', "invalid_value"),
    (b"1", "invalid_value"),
    (b"\xef\xbb\xbf" + _with(), "malformed_json"),
    (_with().decode().encode("utf-16"), "malformed_json"),
    (_raw('"user": "\xff"').replace("\xff".encode(), b"\xff"), "malformed_json"),
    (_raw('"user": "s"').replace(b'"s"', b'"\xed\xa0\x80"'), "malformed_json"),
    (_raw('"user": "\\ud800"'), "malformed_json"),
    (_raw('"user": "\\udc00\\ud800"'), "malformed_json"),
    (_raw('"user": "tab\there"'), "malformed_json"),
    (_raw('"temperature": NaN'), "malformed_json"),
    (_raw('"temperature": Infinity'), "malformed_json"),
    (_raw('"temperature": -Infinity'), "malformed_json"),
    (_raw('"temperature": 01'), "malformed_json"),
    (_raw("'user': 1"), "malformed_json"),
    (_raw('"stop": [1,]'), "malformed_json"),
    (_raw('"temperature": 1e400'), "invalid_value"),
    (_raw('"metadata": {"a": [1e400]}'), "invalid_value"),
    (_raw('"seed": ' + "9" * 5000), "invalid_value"),
    (_raw('"max_tokens": ' + "9" * 5000), "invalid_value"),
    (_raw('"max_tokens": 1e400'), "invalid_value"),
    (_nested(65), "json_too_deep"),
    (_raw('"metadata": ' + '{"a":' * 70 + "1" + "}" * 70), "json_too_deep"),
    (b"[" * 1_000_000, "invalid_value"),
    (b'{"a":' * 1_000_000, "json_too_deep"),
    (_raw('"user\\u0000": 1'), "invalid_value"),
]
DOUBLED = [
    _raw('"model": "sim-large"'),
    _raw('"\\u006dodel": "sim-large"'),
    _raw('"Model": "sim-large"'),
    _raw('"MODEL": "sim-large"'),
    _raw('"max_tokens": 1, "max_tokens": 1'),
    _raw('"max_tokens": 1, "Max_Tokens": 9'),
    _raw('"max_tokens": 1, "max_token\u017f": 9'),
    _raw('"max_tokens": 1, "max_to\u212aens": 9'),
    _raw('"n": 1, "N": 100'),
    _raw('"\\u006e": 1, "n": 100'),
    _raw('"stream": true, "stream_options": {"include_usage": true, "Include_Usage": false}'),
    _raw('"messages": []'),
    _raw('"tools": [{"type": "function", "type": "web_search"}]'),
    _raw('"tools": [{"type": "function", "Type": "web_search"}]'),
    _raw('"metadata": {"a": 1, "\\u0061": 2}'),
    _with().replace(b'"role"', b'"content": [], "role"'),
    _with().replace(b'"role"', b'"Content": [], "role"'),
    _with().replace(b'"Hello"', b'[{"type": "text", "Type": "image_url", "text": "a"}]'),
    _with().replace(b'"Hello"', b'[{"type": "text", "t\\u0079pe": "image_url", "text": "a"}]'),
]
NUMBERS = [
    f'"{name}": {value}'
    for name in ("max_tokens", "max_completion_tokens", "n")
    for value in (
        "0", "-0", "-1", "1.5", "1.0", "1e3", "1E0", "2147483648", str(2**64), "-" + str(2**64),
        "true", '"10"', "[1]", "{}",
    )
] + ['"n": 129', '"max_tokens": 1, "max_completion_tokens": 0', '"stream": 1', '"stream": "yes"']  # fmt: skip
VALUES = [
    _with(messages=[]),
    _with(messages="hello"),
    _with(messages=None),
    _with(messages={"role": "user"}),
    _with(messages=[{"content": "Hello"}]),
    _with(messages=[{"role": "user", "content": 5}]),
    _with(model=5),
    _with(model=None),
    _with(model=""),
    _with(model="m" * 201),
    _with(model="sim-small\x00"),
    _with(model="sim\x00small"),
    _with(model="sim-small\n"),
    _with(model="sim-\x7fsmall"),
    b'{"messages": [{"role": "user", "content": "Hello"}]}',
    b'{"model": "sim-small"}',
    _with(stream_options={"include_usage": True}),
    _with(stream=True, stream_options=[]),
    _with(stream=True, stream_options={"include_usage": "yes"}),
    _with(stream=True, stream_options={"include_usage": 1}),
    _with(tools={}),
    _with(tools=[{"function": {"name": "f"}}]),
]
UNKNOWN_FIELDS = [
    (_with(best_of=2), "best_of"),
    (_with(prompt="a"), "prompt"),
    (_with(Temperature=1), "Temperature"),
    (_with(stream=True, stream_options={"Include_Usage": False}), "stream_options.Include_Usage"),
    (_with(messages=[{"role": "user", "images": ["a"]}]), "messages[0].images"),
    (_with(messages=[{"role": "user", "Content": [{"type": "image_url"}]}]), "messages[0].Content"),
    (_part(type="text", text="a", image_url={"url": "x"}), "messages[1].content[0].image_url"),
    (_with(tools=[{"type": "function", "web_search": {}}]), "tools[0].web_search"),
]
UNBOUNDED = [
    (_with(web_search_options={}), "web_search_options"),
    (_with(audio={"voice": "alloy", "format": "wav"}), "audio"),
    (_with(prediction={"type": "content", "content": "a"}), "prediction"),
    (_with(service_tier="priority"), "service_tier"),
    (_with(service_tier=["default"]), "service_tier"),
    (_with(modalities=["text", "audio"]), "modalities"),
    (_with(modalities="audio"), "modalities"),
    (_part(type="image_url", image_url={"url": "https://x/y"}), "messages"),
    (_part(type="input_audio", input_audio={"data": "", "format": "wav"}), "messages"),
    (_part(type="file", file={"file_id": "f"}), "messages"),
    (_part(type="Text", text="a"), "messages"),
    (_with(messages=[*HELLO, {"role": "assistant", "audio": {"id": "a"}}]), "messages"),
    (_with(tools=[{"type": "web_search"}]), "tools[0].type"),
    (_with(tools=[{"type": "code_interpreter"}]), "tools[0].type"),
]
NAMES = [
    "sim-small ", " sim-small", "SIM-SMALL", "Sim-small", "sim-smal", "sim-small/", "sim\u2010small",
    "s\u0456m-small", "sim-sma\uff4cl", "sim-small:free", "simulator/sim-small",
]  # fmt: skip
BAD_BODIES: list[tuple[bytes, int, str, str | None]] = [
    *((body, 400, code, None) for body, code in BROKEN_JSON),
    *((body, 400, "duplicate_field", None) for body in DOUBLED),
    *((_raw(members), 400, "invalid_value", None) for members in NUMBERS),
    *((body, 400, "invalid_value", None) for body in VALUES),
    *((body, 400, "unsupported_parameter", param) for body, param in UNKNOWN_FIELDS),
    *((body, 403, "cost_not_bounded", param) for body, param in UNBOUNDED),
    *((_with(model=name), 404, "model_not_found", "model") for name in NAMES),
]


def test_every_bad_body_is_named_and_costs_nothing(
    stack: Stack, provider: RunningSimulator
) -> None:
    _, secret = stack.key()
    told = []
    with httpx.Client(
        headers={"authorization": f"Bearer {secret}", "content-type": "application/json"},
        timeout=30,
    ) as client:
        for body, status, _, param in BAD_BODIES:
            answer = client.post(f"{stack.base_url}/chat/completions", content=body)
            error = answer.json()["error"]
            assert answer.headers["x-should-retry"] == "false"
            assert answer.headers["x-request-id"].startswith("req_")
            assert error["type"] == TYPES[status]
            assert error["message"]
            found = error["param"] if param else None
            told.append((body, answer.status_code, error["code"], found))
    assert told == BAD_BODIES
    assert_untouched(stack, provider, [code for _, _, code, _ in BAD_BODIES])


@pytest.mark.parametrize(
    "body",
    [
        _nested(64),
        _raw('"max_tokens": null, "n": null, "stream": null, "stream_options": null'),
        _raw('"max_tokens": 2, "max_completion_tokens": null, "n": 2'),
        _raw('"service_tier": null, "modalities": null, "tools": null, "seed": -0'),
        _raw('"service_tier": "default", "modalities": ["text"], "temperature": 1e-400'),
        _raw('"metadata": {"id": "1", "ID": "2"}, "seed": ' + "9" * 64),
        _raw('"st\\u0072eam": true, "stream_options": {"include_obfuscation": false}'),
        _raw('"functions": [{"name": "f", "parameters": {"properties": {"id": {}, "ID": {}}}}]'),
        _raw('"tools": [{"type": "function", "function": {"name": "f"}}]'),
        _part(type="text", text="a", cache_control={"type": "ephemeral"}),
    ],
)
def test_unusual_bodies_that_have_one_reading_are_served(
    stack: Stack, provider: RunningSimulator, body: bytes
) -> None:
    answer = _post(stack, stack.key()[1], body)
    assert (answer.status_code, provider.bill()["requests"]) == (200, 1)
    assert stack.open_reservations() == 0
    assert stack.ledger_nanos() == provider.bill()["total_nanos"]
