"""B11: every request is estimated, reserved and reconciled, streams included."""

from __future__ import annotations

from typing import Any

import openai
import pytest

from controlplane.money import format_money, parse_money
from tests.e2e.product.tenant import Key, Tenant

INPUT_NANOS, OUTPUT_NANOS = 2_500, 10_000
STATE = "budgets { nodes { state { settled held remaining } } }"

REQUESTS: list[tuple[str, dict[str, Any], int]] = [
    ("JSON", {}, 1),
    ("JSON of two choices", {"n": 2}, 2),
    ("stream", {"stream": True}, 1),
    ("stream with usage", {"stream": True, "stream_options": {"include_usage": True}}, 1),
    ("stream of two choices", {"stream": True, "n": 2}, 2),
]


@pytest.mark.parametrize(
    ("fields", "choices"), [each[1:] for each in REQUESTS], ids=[each[0] for each in REQUESTS]
)
@pytest.mark.parametrize("output_tokens", [1, 77])
def test_b11_what_is_estimated_is_held_and_what_is_billed_is_booked(
    tenant: Tenant, fields: dict[str, Any], choices: int, output_tokens: int
) -> None:
    key = tenant.key()
    tenant.budget({"keyId": key.id}, "1.00")
    asked = {"max_tokens": 100, **fields}
    content = f"[[sim output={output_tokens}]] Hello"
    answer_tokens = _ask(tenant, key, content, asked)
    [entry], record = tenant.stack.ledger(), tenant.last_record()
    assert entry.output_tokens == answer_tokens == choices * output_tokens
    cost = entry.input_tokens * INPUT_NANOS + entry.output_tokens * OUTPUT_NANOS
    assert tenant.provider.bill()["total_nanos"] == entry.charge_nanos == cost
    # Held was the bound: all of the maximum, and no less input than is billed.
    bound = record.bound_nanos - choices * 100 * OUTPUT_NANOS
    assert record.held_nanos == record.bound_nanos
    assert entry.input_tokens * INPUT_NANOS <= bound <= 100 * INPUT_NANOS
    assert (entry.usage_source, entry.overrun_nanos) == ("provider", 0)
    [budget] = tenant.ask_graphql(STATE)["budgets"]["nodes"]
    assert budget["state"] == {
        "settled": format_money(cost),
        "held": "0.00",
        "remaining": format_money(parse_money("1.00") - cost),
    }
    assert tenant.stack.open_reservations() == 0


def _ask(tenant: Tenant, key: Key, content: str, fields: dict[str, Any]) -> int:
    """Ask by the SDK; gives the output tokens that came, as the provider's bill counts them."""
    messages = [{"role": "user", "content": content}]
    with openai.OpenAI(base_url=tenant.stack.base_url, api_key=key.secret) as client:
        answer: Any = client.chat.completions.create(
            model="streamed",
            messages=messages,  # type: ignore[call-overload]
            **fields,
        )
        if fields.get("stream"):
            chunks = list(answer)
            assert chunks
    billed: int = tenant.provider.bill()["completion_tokens"]
    return billed


def test_b11_while_a_stream_runs_its_bound_is_held(tenant: Tenant) -> None:
    key = tenant.key()
    tenant.budget({"keyId": key.id}, "1.00", hold="BOUND")
    with tenant.running(key, max_tokens=100):
        [record_held] = [
            each["state"]["held"] for each in tenant.ask_graphql(STATE)["budgets"]["nodes"]
        ]
        assert tenant.stack.open_reservations() == 1
    record = tenant.last_record()
    assert parse_money(record_held) == record.bound_nanos
    assert record.client_disconnected
    [budget] = tenant.ask_graphql(STATE)["budgets"]["nodes"]
    assert budget["state"]["held"] == "0.00"
    assert parse_money(budget["state"]["settled"]) == tenant.stack.ledger_nanos()
    assert 0 < tenant.stack.ledger_nanos() <= record.bound_nanos


def test_b11_the_estimate_is_what_the_request_then_holds(tenant: Tenant) -> None:
    key = tenant.key()
    before = tenant.state()
    estimate = tenant.estimate(key)
    assert tenant.state() == before
    assert tenant.stack.records() == []
    tenant.spend(key)
    record = tenant.last_record()
    assert estimate["cost_max"] == format_money(record.held_nanos) == "0.05"
    assert (estimate["allowed"], estimate["refusal"], estimate["over_limit_steps"]) == (
        True,
        None,
        [],
    )
