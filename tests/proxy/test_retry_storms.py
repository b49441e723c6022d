"""Repeated requests that keep failing: when they are cut off, and for how long."""

from __future__ import annotations

from collections import defaultdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.fingerprints import FINGERPRINT_BYTES, body_fingerprint
from proxy.retry_storms import FAILURES_MAX, WINDOW_NS, RetryStorms, retry_storm

S = 1_000_000_000
BODY = body_fingerprint(b"{}")


def storm(*failed_at_s: int, **limits: int) -> RetryStorms:
    storms = RetryStorms(**limits)
    for at_s in failed_at_s:
        storms.failed("key", BODY, at_s * S)
    return storms


def test_as_many_failures_as_allowed_cut_the_next_one_off() -> None:
    assert storm(0, 1, 2, 3).check("key", BODY, 5, 4 * S) is None
    assert storm(0, 1, 2, 3, 4).check("key", BODY, 5, 4 * S) == 56 * S


def test_it_may_come_again_at_the_stated_instant_and_not_before() -> None:
    storms = storm(10, 20, 30)
    wait_ns = storms.check("key", BODY, 2, 31 * S)
    assert wait_ns == 49 * S
    assert storms.check("key", BODY, 2, 31 * S + wait_ns - 1) == 1
    assert storms.check("key", BODY, 2, 31 * S + wait_ns) is None


def test_being_cut_off_does_not_make_it_longer() -> None:
    storms = storm(0, 0)
    assert [storms.check("key", BODY, 2, at_s * S) for at_s in (10, 20, 59)] == [
        50 * S,
        40 * S,
        1 * S,
    ]


def test_another_key_or_another_body_is_another_request() -> None:
    storms = storm(0)
    assert storms.check("other", BODY, 1, S) is None
    assert storms.check("key", body_fingerprint(b"{ }"), 1, S) is None
    assert storms.check("key", BODY, 1, S) == 59 * S


def test_a_success_clears() -> None:
    storms = storm(0, 1, 2)
    storms.succeeded("key", BODY)
    storms.succeeded("key", BODY)
    assert (len(storms), storms.check("key", BODY, 1, 2 * S)) == (0, None)


@pytest.mark.parametrize("maximum", [0, -1, FAILURES_MAX + 1])
def test_a_maximum_out_of_range_is_an_error(maximum: int) -> None:
    with pytest.raises(ValueError, match="must be 1 to 1000"):
        RetryStorms().check("key", BODY, maximum, 0)


def test_no_more_failures_of_a_request_are_kept_than_can_matter() -> None:
    storms = RetryStorms()
    for number in range(FAILURES_MAX + 1):
        storms.failed("key", BODY, number)
    # The first of them is forgotten, the second counts.
    assert storms.check("key", BODY, FAILURES_MAX, FAILURES_MAX) == WINDOW_NS + 1 - FAILURES_MAX


def test_requests_that_failed_a_minute_ago_are_forgotten() -> None:
    storms = storm(0)
    storms.failed("other", BODY, 60 * S - 1)
    assert len(storms) == 2
    storms.failed("other", BODY, 60 * S)
    assert len(storms) == 1


def test_of_too_many_requests_the_longest_unrepeated_is_forgotten() -> None:
    storms = RetryStorms(requests_kept_max=2)
    for key in ("a", "b", "a", "c"):
        storms.failed(key, BODY, 0)
    assert [storms.check(key, BODY, 1, 0) is not None for key in "abc"] == [True, False, True]


def test_of_too_many_failures_the_longest_unrepeated_request_is_forgotten() -> None:
    storms = RetryStorms(failures_kept_max=3)
    for key in ("a", "a", "b"):
        storms.failed(key, BODY, 0)
    assert len(storms) == 2
    storms.failed("b", BODY, 0)
    assert [storms.check(key, BODY, 1, 0) is not None for key in "ab"] == [False, True]
    # Both failures of the forgotten one have been given back.
    storms.failed("b", BODY, 0)
    assert storms.check("b", BODY, 3, 0) is not None


EVENTS = st.lists(
    st.tuples(
        st.integers(0, 40),
        st.sampled_from("ab"),
        st.sampled_from(["failed", "failed", "succeeded", "none"]),
    ),
    max_size=60,
)


@given(EVENTS, st.integers(1, 6))
def test_it_is_a_list_of_failures_in_a_window(
    events: list[tuple[int, str, str]], maximum: int
) -> None:
    storms, model, at_ns = RetryStorms(), defaultdict[str, list[int]](list), 0
    for passed_s, key, event in events:
        at_ns += passed_s * S
        if event == "failed":
            storms.failed(key, BODY, at_ns)
            model[key].append(at_ns)
        elif event == "succeeded":
            storms.succeeded(key, BODY)
            model[key].clear()
        recent = [each for each in model[key] if at_ns < each + WINDOW_NS]
        wait_ns = recent[-maximum] + WINDOW_NS - at_ns if len(recent) >= maximum else None
        assert storms.check(key, BODY, maximum, at_ns) == wait_ns


def test_the_problem_tells_the_second_rounded_up_and_not_to_retry() -> None:
    problem = retry_storm(48_000_000_001)
    assert (problem.status, problem.code, problem.type) == (429, "retry_storm", "rate_limit_error")
    headers = dict(problem.response_headers(b"id", problem.body()))
    assert (headers[b"retry-after"], headers[b"x-should-retry"]) == (b"49", b"false")


def test_a_fingerprint_tells_bodies_apart() -> None:
    assert len(body_fingerprint(b"")) == FINGERPRINT_BYTES
    assert body_fingerprint(b"a") == body_fingerprint(b"a") != body_fingerprint(b"b")
