"""Confirm tokens: for one key, body and limit, once, for ten minutes."""

from __future__ import annotations

import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from datetime import UTC, datetime

import pytest

from controlplane.clock import ManualClock, instant
from proxy.confirmations import (
    HEADER,
    LIFETIME_NS,
    TOKENS_MAX,
    Confirmation,
    Confirmations,
    confirmation_required,
    read_tokens,
)
from proxy.errors import Problem
from proxy.fingerprints import body_fingerprint

START_NS = ManualClock(datetime(2026, 3, 1, tzinfo=UTC)).wall_ns()
NOW_NS = START_NS + 1
HOUR_NS = 3_600 * 1_000_000_000
PEPPER = b"p" * 32
BODY = body_fingerprint(b"{}")
OK, EXPIRED, USED, WRONG = Confirmation


def confirmations(used_kept_max: int = 10) -> Confirmations:
    return Confirmations(PEPPER, START_NS, used_kept_max=used_kept_max)


def made(by: Confirmations, wall_ns: int = NOW_NS, limit_id: str = "limit") -> str:
    return by.make("key", BODY, limit_id, wall_ns)[0]


def checked(
    by: Confirmations, token: str, wall_ns: int = NOW_NS, limit_id: str = "limit"
) -> Confirmation:
    return by.check(token, "key", BODY, limit_id, wall_ns)


def test_a_token_works_once() -> None:
    by = confirmations()
    token = made(by)
    assert [checked(by, token) for _ in range(3)] == [OK, USED, USED]


def test_it_works_until_the_instant_that_was_stated() -> None:
    by = confirmations()
    (first, end_ns), (second, _) = (by.make("key", BODY, limit, NOW_NS) for limit in ("a", "b"))
    assert end_ns == NOW_NS + LIFETIME_NS
    assert checked(by, first, end_ns - 1, "a") is OK
    assert checked(by, second, end_ns, "b") is EXPIRED
    assert checked(by, first, end_ns, "a") is EXPIRED


def test_it_is_for_one_key_one_body_and_one_limit() -> None:
    by = confirmations()
    token = made(by)
    assert by.check(token, "yek", BODY, "limit", NOW_NS) is WRONG
    assert by.check(token, "key", body_fingerprint(b"{ }"), "limit", NOW_NS) is WRONG
    assert by.check(token, "key", BODY, "limits", NOW_NS) is WRONG
    # The same characters, cut in another place.
    assert by.check(token, "keyl", BODY, "imit", NOW_NS) is WRONG
    assert len(by) == 0
    assert checked(by, token) is OK


def test_a_token_of_another_pepper_is_wrong() -> None:
    assert checked(confirmations(), made(Confirmations(b"q" * 32, START_NS))) is WRONG


def test_no_other_spelling_of_a_token_works() -> None:
    by = confirmations()
    token = made(by)
    raw = bytearray(urlsafe_b64decode(token + "=="))
    for place in range(len(raw)):
        raw[place] ^= 1
        assert checked(by, urlsafe_b64encode(raw).rstrip(b"=").decode()) is WRONG
        raw[place] ^= 1
    others = ["", "=", "é", "a", token + "=", token + "==", token + "A", token[:-1], f"{token}\n"]
    # The last character holds bits that no byte takes.
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    others += [token[:-1] + last for last in alphabet if last != token[-1]]
    assert {checked(by, other) for other in others} == {WRONG}
    assert checked(by, token) is OK


def test_the_used_ones_are_forgotten_when_they_are_over() -> None:
    by = confirmations()
    assert checked(by, made(by)) is OK
    assert checked(by, made(by, NOW_NS + 1), NOW_NS + 1) is OK
    assert len(by) == 2
    assert checked(by, made(by, NOW_NS + LIFETIME_NS), NOW_NS + LIFETIME_NS) is OK
    assert len(by) == 2


def test_a_clock_that_is_set_back_makes_no_used_token_work_again() -> None:
    by = confirmations()
    token = made(by)
    assert checked(by, token) is OK
    later_ns = NOW_NS + HOUR_NS
    assert checked(by, made(by, later_ns), later_ns) is OK
    assert checked(by, token) is EXPIRED
    # And the tokens made after it was set back work.
    assert checked(by, made(by, NOW_NS)) is OK


def test_a_token_from_before_a_restart_does_not_work_again() -> None:
    before = confirmations()
    token = made(before)
    assert checked(before, token) is OK
    after = Confirmations(PEPPER, NOW_NS)
    assert checked(after, token) is EXPIRED
    assert checked(after, made(after)) is OK


def test_too_many_used_tokens_end_the_oldest_early() -> None:
    by = confirmations(used_kept_max=2)
    tokens = [made(by, NOW_NS + number) for number in range(4)]
    assert [checked(by, token) for token in tokens[1:3]] == [OK, OK]
    assert (len(by), checked(by, tokens[3])) == (2, OK)
    assert len(by) == 2
    # Neither works: the one that was forgotten, and an unused one that ends before it.
    assert [checked(by, token) for token in tokens] == [EXPIRED, EXPIRED, USED, USED]


def test_several_tokens_may_be_sent() -> None:
    assert read_tokens({}) == ()
    assert read_tokens({HEADER: b"a , b"}) == ("a", "b")
    most = b",".join([b"a"] * TOKENS_MAX)
    assert len(read_tokens({HEADER: most})) == TOKENS_MAX
    with pytest.raises(Problem) as raised:
        read_tokens({HEADER: most + b",a"})
    assert (raised.value.status, raised.value.code) == (400, "invalid_header")


def test_the_problem_carries_the_token_its_end_and_the_limit() -> None:
    limit = {"scope": "team", "resource": "spend"}
    token, end_ns = confirmations().make("key", BODY, "limit", NOW_NS)
    problem = confirmation_required(limit, 80, token, instant(end_ns))
    error = json.loads(problem.body())["error"]
    assert (problem.status, error["type"]) == (403, "permission_error")
    assert (error["code"], error["param"]) == ("confirmation_required", None)
    assert (error["confirm_token"], error["limit"]) == (token, limit)
    assert error["expires_at"] == "2026-03-01T00:10:00+00:00"
    assert "x-comptroller-confirm" in error["message"]
    assert dict(problem.response_headers(b"id", b""))[b"x-should-retry"] == b"false"
