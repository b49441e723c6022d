"""What a provider does wrong: the caller is told, the money is booked, nothing stays held."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from comptroller.simulator.running import RunningSimulator
from tests.stack import Stack


def _ask(stack: Stack, **fields: Any) -> httpx.Response:
    return httpx.post(
        f"{stack.base_url}/chat/completions",
        json={
            "model": "sim-small",
            "messages": [{"role": "user", "content": "Hello"}],
            "max_tokens": 20,
            **fields,
        },
        headers={"authorization": f"Bearer {stack.key()[1]}"},
        timeout=30,
    )


@pytest.mark.parametrize(
    ("fault", "status", "code", "retry"),
    [
        ("server_error", 502, "upstream_error", "false"),
        ("unauthorized", 502, "upstream_auth_failed", "false"),
        ("redirect", 502, "upstream_bad_response", "false"),
    ],
)
def test_an_error_of_the_provider_costs_nothing(
    stack: Stack, provider: RunningSimulator, fault: str, status: int, code: str, retry: str
) -> None:
    provider.add_fault(fault, times=1)
    answer = _ask(stack)
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
    assert answer.headers["x-should-retry"] == retry
    assert stack.open_reservations() == 0
    assert provider.bill()["total_nanos"] <= stack.ledger_nanos()
    [record] = stack.records()
    assert (record.decision, record.http_status, record.code) == ("failed", status, code)


def test_a_connection_reset_before_the_answer_is_booked_at_what_was_held(
    stack: Stack, provider: RunningSimulator
) -> None:
    provider.add_fault("reset_before_head", times=1)
    answer = _ask(stack)
    assert answer.status_code == 502
    assert answer.headers["x-should-retry"] == "false"
    [entry] = stack.ledger()
    [record] = stack.records()
    assert entry.usage_source == "held"
    assert entry.charge_nanos == record.held_nanos > 0
    assert stack.open_reservations() == 0


def test_a_usage_that_never_comes_is_counted_by_ourselves(
    stack: Stack, provider: RunningSimulator
) -> None:
    provider.add_fault("missing_usage", times=1)
    answer = _ask(stack, stream=True)
    assert answer.status_code == 200
    [entry] = stack.ledger()
    assert (entry.usage_source, entry.output_tokens) == ("own_count", 20)
    assert entry.charge_nanos >= provider.bill()["total_nanos"]
    assert stack.open_reservations() == 0
