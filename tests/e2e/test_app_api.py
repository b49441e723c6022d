"""The official SDK asks what would pass, and then does it."""

from __future__ import annotations

from typing import Any

import openai
import pytest

from comptroller.simulator.running import RunningSimulator
from controlplane.limits.models import ScopeKind
from tests.proxy.untouched import assert_untouched
from tests.stack import Stack

REQUEST: dict[str, Any] = {
    "model": "sim-flat-0.05",
    "messages": [{"role": "user", "content": "Hello"}],
}


def test_the_sdk_estimates_spends_and_is_refused_as_foretold(
    stack: Stack, provider: RunningSimulator
) -> None:
    key_id, secret = stack.key()
    stack.budget(stack.scope(ScopeKind.KEY, key_id), "0.05")
    with openai.OpenAI(base_url=stack.base_url, api_key=secret) as client:

        def estimate() -> Any:
            return client.post("/comptroller/estimate", cast_to=object, body=REQUEST)

        def remaining() -> list[str]:
            limits: Any = client.get("/comptroller/limits", cast_to=object)
            return [
                each["remaining"]
                for each in limits["data"]
                if (each["kind"], each["scope"]) == ("budget", "key")
            ]

        foretold = estimate()
        assert (foretold["allowed"], foretold["cost_max"]) == (True, "0.05")
        assert remaining() == ["0.05"]
        assert_untouched(stack, provider)
        client.chat.completions.create(**REQUEST)
        assert remaining() == ["0.00"]
        foretold = estimate()
        assert foretold["allowed"] is False
        with pytest.raises(openai.APIStatusError) as caught:
            client.chat.completions.create(**REQUEST)
        assert caught.value.status_code == foretold["refusal"]["status"] == 402
        assert caught.value.body["code"] == foretold["refusal"]["code"]
        for name in ("scope_id", "cap", "used", "held", "requested", "resets_at"):
            assert caught.value.body["limit"][name] == foretold["refusal"]["limit"][name]
    assert provider.bill()["requests"] == 1


def test_the_sdk_raises_what_the_real_route_would(stack: Stack, provider: RunningSimulator) -> None:
    with openai.OpenAI(base_url=stack.base_url, api_key=stack.key()[1]) as client:
        for wrong, code in (({"model": "none"}, "model_not_found"), ({"n": 0}, "invalid_value")):
            with pytest.raises(openai.APIStatusError) as caught:
                client.post("/comptroller/estimate", cast_to=object, body={**REQUEST, **wrong})
            assert caught.value.body["code"] == code
    assert_untouched(stack, provider)
