"""Requests that are wrong in themselves: a clear answer, nothing sent, nothing held, one record."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from comptroller.simulator.running import RunningSimulator
from tests.stack import Stack

GOOD: dict[str, Any] = {"model": "sim-small", "messages": [{"role": "user", "content": "Hello"}]}
IMAGE = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "https://x/y"}}]}]


def _post(stack: Stack, secret: str, content: bytes, **headers: str) -> httpx.Response:
    return httpx.post(
        f"{stack.base_url}/chat/completions",
        content=content,
        headers={
            "authorization": f"Bearer {secret}",
            "content-type": "application/json",
            **headers,
        },
        timeout=30,
    )


def _with(**fields: Any) -> bytes:
    return json.dumps({**GOOD, **fields}).encode()


BAD_BODIES = [
    (b"", 400, "malformed_json"),
    (b"[]", 400, "invalid_value"),
    (b"null", 400, "invalid_value"),
    (b'{"model": "sim-small"', 400, "malformed_json"),
    (b'{"model": "sim-small"} x', 400, "malformed_json"),
    (b'\xef\xbb\xbf{"model": "sim-small"}', 400, "malformed_json"),
    (b'{"model": "\xff"}', 400, "malformed_json"),
    (b'{"temperature": NaN}', 400, "malformed_json"),
    (b'{"metadata": ' + b'{"a":' * 70 + b"1" + b"}" * 71, 400, "json_too_deep"),
    (b'{"model": "sim-small", "\\u006dodel": "sim-large"}', 400, "duplicate_field"),
    (b'{"max_tokens": 1, "Max_Tokens": 9}', 400, "duplicate_field"),
    (_with(messages=[]), 400, "invalid_value"),
    (_with(messages="hello"), 400, "invalid_value"),
    (_with(model=5), 400, "invalid_value"),
    (_with(model=""), 400, "invalid_value"),
    (_with(max_tokens=0), 400, "invalid_value"),
    (_with(max_tokens=-1), 400, "invalid_value"),
    (_with(max_tokens=1.5), 400, "invalid_value"),
    (_with(max_tokens=2**64), 400, "invalid_value"),
    (_with(max_tokens=True), 400, "invalid_value"),
    (_with(n=129), 400, "invalid_value"),
    (_with(stream="yes"), 400, "invalid_value"),
    (_with(stream_options={"include_usage": True}), 400, "invalid_value"),
    (_with(best_of=2), 400, "unsupported_parameter"),
    (_with(web_search_options={}), 403, "cost_not_bounded"),
    (_with(service_tier="priority"), 403, "cost_not_bounded"),
    (_with(modalities=["text", "audio"]), 403, "cost_not_bounded"),
    (_with(messages=IMAGE), 403, "cost_not_bounded"),
    (_with(model="sim-small "), 404, "model_not_found"),
    (_with(model="SIM-SMALL"), 404, "model_not_found"),
]


def test_every_bad_body_is_named_and_costs_nothing(
    stack: Stack, provider: RunningSimulator
) -> None:
    _, secret = stack.key()
    told = []
    for body, _, _ in BAD_BODIES:
        answer = _post(stack, secret, body)
        assert answer.headers["x-should-retry"] == "false"
        assert answer.headers["x-request-id"].startswith("req_")
        told.append((body, answer.status_code, answer.json()["error"]["code"]))
    assert told == BAD_BODIES
    assert provider.bill()["requests"] == 0
    assert stack.open_reservations() == 0
    assert stack.ledger() == []
    records = stack.records()
    assert [record.code for record in records] == [code for _, _, code in BAD_BODIES]
    assert {record.decision for record in records} == {"refused"}


@pytest.mark.parametrize(
    ("headers", "status", "code"),
    [
        ({"content-type": "text/plain"}, 415, "unsupported_media_type"),
        ({"content-encoding": "gzip"}, 415, "unsupported_content_encoding"),
        ({"x-api-key": "ck_live_another"}, 400, "ambiguous_credentials"),
        ({"x-comptroller-class": "fast"}, 400, "invalid_header"),
        ({"x-comptroller-tags": "novalue"}, 400, "invalid_header"),
        ({"x-comptroller-feature": "f" * 201}, 400, "invalid_header"),
    ],
)
def test_bad_heads(
    stack: Stack, provider: RunningSimulator, headers: dict[str, str], status: int, code: str
) -> None:
    answer = _post(stack, stack.key()[1], _with(), **headers)
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
    assert provider.bill()["requests"] == 0
    assert stack.open_reservations() == 0


@pytest.mark.parametrize("secret", ["sk-nothing", "ck_live_" + "a" * 36])
def test_keys_that_do_not_work_get_one_and_the_same_answer(
    stack: Stack, provider: RunningSimulator, secret: str
) -> None:
    answer = _post(stack, secret, _with())
    assert answer.status_code == 401
    assert answer.json()["error"]["code"] == "invalid_api_key"
    assert stack.records() == []
    assert provider.bill()["requests"] == 0


def test_routes_that_do_not_exist_and_methods_that_do_not_fit(stack: Stack) -> None:
    missing = httpx.post(f"{stack.base_url}/images/generations", json={})
    assert (missing.status_code, missing.json()["error"]["code"]) == (404, "not_found")
    wrong = httpx.get(f"{stack.base_url}/chat/completions")
    assert (wrong.status_code, wrong.json()["error"]["code"]) == (405, "method_not_allowed")
