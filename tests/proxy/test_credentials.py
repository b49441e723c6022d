"""Who asks: one credential, one answer to all that do not work, and what goes before what."""

from __future__ import annotations

import json

import httpx
import pytest

from comptroller.simulator.running import RunningSimulator
from controlplane.keys.service import revoke_key, set_key_enabled
from tests.proxy.raw_http import BODY, JSON, LENGTH, ask, head
from tests.proxy.untouched import assert_untouched
from tests.stack import Stack

UNKNOWN = "ck_live_000000000000000000000000000000"


def _bearer(secret: str, *, name: bytes = b"authorization", scheme: bytes = b"Bearer") -> bytes:
    return name + b": " + scheme + b" " + secret.encode()


def _x_api_key(secret: str) -> bytes:
    return b"x-api-key: " + secret.encode()


def _asked(stack: Stack, *lines: bytes) -> tuple[int, str | None]:
    """Ask with these headers; gives the status and the code."""
    answer = ask(stack, head(None, JSON, LENGTH, *lines) + BODY)
    assert answer.headers["x-request-id"].startswith("req_")
    if answer.status == 200:
        return 200, None
    assert answer.headers["x-should-retry"] == "false"
    return answer.status, answer.error["code"]


def test_one_credential_may_come_more_than_once_and_in_any_spelling(
    stack: Stack, provider: RunningSimulator
) -> None:
    secret = stack.key()[1]
    ways = [
        [_bearer(secret)],
        [_bearer(secret, scheme=b"bearer")],
        [_bearer(secret, name=b"AUTHORIZATION", scheme=b"BEARER")],
        [_bearer(secret, scheme=b"Bearer ")],
        [_x_api_key(secret)],
        [_bearer(secret), _bearer(secret)],
        [_bearer(secret), _bearer(secret, scheme=b"bearer")],
        [_bearer(secret), _x_api_key(secret)],
        [_x_api_key(secret), _x_api_key(secret + " "), _bearer(secret)],
    ]
    assert [_asked(stack, *lines) for lines in ways] == [(200, None)] * len(ways)
    assert provider.bill()["requests"] == len(stack.ledger()) == len(ways)


def test_two_different_credentials_are_refused(stack: Stack, provider: RunningSimulator) -> None:
    secret, other = stack.key()[1], stack.key()[1]
    ways = [
        [_bearer(secret), _bearer(other)],
        [_bearer(secret), _x_api_key(other)],
        [_x_api_key(other), _x_api_key(secret)],
        [_bearer(secret), _bearer(secret), _bearer(other)],
        [_bearer(secret), _bearer("Zm9v", scheme=b"Basic")],
        [_bearer("Zm9v", scheme=b"Basic"), _x_api_key(secret)],
        [_bearer(secret), b"x-api-key:"],
    ]
    refused = (400, "ambiguous_credentials")
    assert [_asked(stack, *lines) for lines in ways] == [refused] * len(ways)
    assert_untouched(stack, provider)


def test_all_credentials_that_do_not_work_get_one_and_the_same_answer(
    stack: Stack, provider: RunningSimulator
) -> None:
    key_id, revoked = stack.key()
    stack.change(lambda work: revoke_key(work, stack.organization_id, key_id))
    secret = stack.key()[1]
    ways = [
        [],
        [b"authorization:"],
        [b"authorization: Bearer"],
        [b"authorization: " + secret.encode()],
        [_bearer(secret, scheme=b"Basic")],
        [_bearer(secret, scheme=b"Bearer\t")],
        [_bearer(f"{secret} {secret}")],
        [_bearer(f"{secret}, {secret}")],
        [_bearer("sk-nothing")],
        [_bearer("ck_live_" + "a" * 36)],
        [_bearer("ck_test_" + secret.removeprefix("ck_live_"))],
        [_bearer(secret[:-1])],
        [_bearer(secret.swapcase())],
        [_bearer(secret + "\u00e9")],
        [_bearer(stack.admin_token)],
        [_bearer(revoked)],
        [_x_api_key("k" * 10_000)],
    ]
    answers = [ask(stack, head(None, JSON, LENGTH, *lines) + BODY) for lines in ways]
    assert {(answer.status, answer.body) for answer in answers} == {(401, answers[0].body)}
    error = answers[0].error
    assert (error["code"], error["type"]) == ("invalid_api_key", "authentication_error")
    assert {answer.headers["x-should-retry"] for answer in answers} == {"false"}
    assert all(answer.headers["x-request-id"].startswith("req_") for answer in answers)
    assert_untouched(stack, provider)


def test_models_are_listed_for_keys_that_work_alone(
    stack: Stack, provider: RunningSimulator
) -> None:
    key_id, secret = stack.key(allowed_models=("sim-large", "sim-small"))
    address = f"{stack.base_url}/models"
    bearer = {"authorization": f"Bearer {secret}"}
    listed = httpx.get(address, headers=bearer)
    assert [each["id"] for each in listed.json()["data"]] == ["sim-large", "sim-small"]
    assert listed.headers["x-request-id"].startswith("req_")
    assert httpx.get(address).json()["error"]["code"] == "invalid_api_key"
    both = httpx.get(address, headers={**bearer, "x-api-key": UNKNOWN})
    assert (both.status_code, both.json()["error"]["code"]) == (400, "ambiguous_credentials")
    disable = set_key_enabled
    stack.change(lambda work: disable(work, stack.organization_id, key_id, enabled=False))
    disabled = httpx.get(address, headers=bearer)
    assert (disabled.status_code, disabled.json()["error"]["code"]) == (403, "key_disabled")
    assert disabled.headers["x-should-retry"] == "false"
    assert_untouched(stack, provider)


@pytest.mark.parametrize(
    ("faults", "status", "code"),
    [
        ("head key state body model", 400, "invalid_header"),
        ("size key state body model", 413, "request_too_large"),
        ("key state body model", 401, "invalid_api_key"),
        ("state body model", 403, "key_disabled"),
        ("kind body model", 415, "unsupported_media_type"),
        ("body model", 400, "invalid_value"),
        ("model", 404, "model_not_found"),
    ],
)
def test_the_first_fault_in_the_documented_order_is_named(
    stack: Stack, provider: RunningSimulator, faults: str, status: int, code: str
) -> None:
    key_id, secret = stack.key()
    if "state" in faults:
        stack.change(
            lambda work: set_key_enabled(work, stack.organization_id, key_id, enabled=False)
        )
    fields = {
        "model": "no-such-model" if "model" in faults else "sim-small",
        "messages": [] if "body" in faults else [{"role": "user", "content": "Hello"}],
    }
    body = json.dumps(fields).encode()
    lines = [
        b"content-length: " + (b"9" * 15 if "size" in faults else b"%d" % len(body)),
        b"content-type: text/plain" if "kind" in faults else JSON,
        *([b"content-type: text/html"] if "head" in faults else []),
    ]
    answer = ask(stack, head(UNKNOWN if "key" in faults else secret, *lines) + body)
    assert (answer.status, answer.error["code"]) == (status, code)
    has_record = status not in {401, 413} and code != "invalid_header"
    assert_untouched(stack, provider, [code] if has_record else [])


@pytest.mark.parametrize(
    "line",
    [
        b"x-comptroller-class: fast",
        b"x-comptroller-tags: novalue",
        b"x-comptroller-tags: a=1,a=2",
        b"x-comptroller-tags: " + b",".join(b"k%d=v" % number for number in range(21)),
        b"x-comptroller-feature: " + b"f" * 201,
        b"x-comptroller-feature:",
        b"x-comptroller-feature: \xff",
        b"x-comptroller-session: \xe2\x80\xae",
    ],
)
def test_labels_that_cannot_be_are_refused(
    stack: Stack, provider: RunningSimulator, line: bytes
) -> None:
    answer = ask(stack, head(stack.key()[1], JSON, LENGTH, line) + BODY)
    assert (answer.status, answer.error["code"]) == (400, "invalid_header")
    assert_untouched(stack, provider, ["invalid_header"])
