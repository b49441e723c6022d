"""Rates and breakers by a clock that moves when told: true to the second."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest

from comptroller.simulator.running import RunningSimulator
from controlplane.clock import ManualClock
from controlplane.limits.models import ScopeKind
from tests.stack import Stack, running_stack

SECOND_NS = 1_000_000_000


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(datetime(2026, 3, 14, 9, 26, 53, 500_000, tzinfo=UTC))


@pytest.fixture
def timed(tmp_path: Path, provider: RunningSimulator, clock: ManualClock) -> Iterator[Stack]:
    with running_stack(tmp_path, provider, clock=clock) as running:
        yield running


def _ask(stack: Stack, secret: str) -> httpx.Response:
    return httpx.post(
        f"{stack.base_url}/chat/completions",
        json={"model": "sim-flat-0.05", "messages": [{"role": "user", "content": "Hello"}]},
        headers={"authorization": f"Bearer {secret}"},
        timeout=30,
    )


def test_rates_and_breakers_say_when_and_keep_to_it(
    timed: Stack, clock: ManualClock, provider: RunningSimulator
) -> None:
    _rate_lets_no_eleventh_through(timed, clock)
    clock.advance_ns(3_700 * SECOND_NS)
    _breaker_opens_and_closes_by_itself(timed, clock, provider)


def _rate_lets_no_eleventh_through(stack: Stack, clock: ManualClock) -> None:
    _, secret = stack.key(requests_per_minute=10)
    for _ in range(10):
        assert _ask(stack, secret).status_code == 200
    refused = _ask(stack, secret)
    assert refused.status_code == 429
    assert refused.json()["error"]["code"] == "rate_limit_exceeded"
    assert refused.headers["x-should-retry"] == "false" or int(refused.headers["retry-after"]) <= 60
    retry_after_s = int(refused.headers["retry-after"])
    clock.advance_ns((retry_after_s - 1) * SECOND_NS)
    assert _ask(stack, secret).status_code == 429
    clock.advance_ns(SECOND_NS)
    assert _ask(stack, secret).status_code == 200


def _breaker_opens_and_closes_by_itself(
    stack: Stack, clock: ManualClock, provider: RunningSimulator
) -> None:
    _, secret = stack.key()
    stack.breaker(stack.scope(ScopeKind.MEMBER), minute="0.10")
    assert [_ask(stack, secret).status_code for _ in range(2)] == [200, 200]
    billed = provider.bill()["requests"]
    open_answer = _ask(stack, secret)
    assert open_answer.status_code == 503
    assert open_answer.json()["error"]["code"] == "spend_circuit_open"
    assert open_answer.headers["x-should-retry"] == "false"
    retry_after_s = int(open_answer.headers["retry-after"])
    assert 59 <= retry_after_s <= 61
    clock.advance_ns((retry_after_s - 1) * SECOND_NS)
    assert _ask(stack, secret).status_code == 503
    assert provider.bill()["requests"] == billed
    clock.advance_ns(SECOND_NS)
    assert _ask(stack, secret).status_code == 200
