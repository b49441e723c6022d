"""Models that cannot be priced, or whose answer nothing bounds, are not served."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import count
from typing import Any

import httpx
import pytest

from comptroller.simulator.running import RunningSimulator
from tests.proxy.untouched import assert_untouched
from tests.stack import Stack, running_stack

PRICE = {"input_per_million": "0.15", "output_per_million": "0.60"}
_NUMBERS = count(1)


def _upstreams(base_url: str) -> dict[str, object]:
    models = [
        {"name": "unpriced", "upstream_model": "sim-unknown", "output_tokens_max": 100},
        {"name": "unbounded", "upstream_model": "sim-small", "price": PRICE},
        {"name": "free", "upstream_model": "sim-large", "price": {"request": "0"}},
    ]
    simulator = {
        "name": "simulator",
        "base_url": base_url,
        "provider": "simulator",
        "private_addresses": ["127.0.0.0/8"],
        "models": models,
    }
    return {"upstreams": [simulator]}


@pytest.fixture(scope="module")
def sparse(
    tmp_path_factory: pytest.TempPathFactory, shared_provider: RunningSimulator
) -> Iterator[Stack]:
    """An installation whose models say less than they should."""
    folder = tmp_path_factory.mktemp("sparse")
    path = folder / "own-upstreams.json"
    path.write_text(json.dumps(_upstreams(shared_provider.base_url)))
    with running_stack(folder, shared_provider, organization=False, upstreams_file=path) as running:
        yield running


@pytest.fixture
def tenant(sparse: Stack, provider: RunningSimulator) -> Stack:
    """A new organization in it."""
    return sparse.tenant(f"sparse-{next(_NUMBERS)}")


def _ask(stack: Stack, model: str, **fields: Any) -> httpx.Response:
    return httpx.post(
        f"{stack.base_url}/chat/completions",
        json={"model": model, "messages": [{"role": "user", "content": "Hello"}], **fields},
        headers={"authorization": f"Bearer {stack.key()[1]}"},
        timeout=30,
    )


def test_a_model_without_a_price_is_not_served(tenant: Stack, provider: RunningSimulator) -> None:
    answer = _ask(tenant, "unpriced", max_tokens=5)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (403, "model_not_priced")
    assert (error["type"], error["param"]) == ("permission_error", "model")
    assert answer.headers["x-should-retry"] == "false"
    assert answer.headers["x-request-id"].startswith("req_")
    assert_untouched(tenant, provider, ["model_not_priced"])


def test_an_answer_without_any_bound_is_not_asked_for(
    tenant: Stack, provider: RunningSimulator
) -> None:
    answer = _ask(tenant, "unbounded")
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (403, "cost_not_bounded")
    assert (error["type"], error["param"]) == ("permission_error", "max_tokens")
    assert answer.headers["x-should-retry"] == "false"
    assert_untouched(tenant, provider, ["cost_not_bounded"])


def test_a_bound_of_the_callers_own_is_enough(tenant: Stack, provider: RunningSimulator) -> None:
    assert _ask(tenant, "unbounded", max_tokens=5).status_code == 200
    [entry] = tenant.ledger()
    assert (entry.output_tokens, entry.charge_nanos) == (5, provider.bill()["total_nanos"])
