"""No request is let through that could not be put on record."""

from __future__ import annotations

import httpx
import pytest

from comptroller.simulator.running import RunningSimulator
from tests.proxy.untouched import assert_untouched
from tests.stack import Stack


def test_a_full_queue_of_records_gets_503_and_passes_when_there_is_room(
    stack: Stack, provider: RunningSimulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = httpx.Request(
        "POST",
        f"{stack.base_url}/chat/completions",
        json={"model": "sim-small", "messages": [{"role": "user", "content": "Hello"}]},
        headers={"authorization": f"Bearer {stack.key()[1]}"},
    )
    with httpx.Client(timeout=30) as client:
        with monkeypatch.context() as full:
            full.setattr(stack.comptroller.recorder, "_queue_max", 0)
            answer = client.send(request)
        error = answer.json()["error"]
        assert (answer.status_code, error["code"]) == (503, "audit_unavailable")
        assert error["type"] == "api_error"
        assert answer.headers["retry-after"] == "1"
        assert answer.headers["x-should-retry"] == "true"
        assert answer.headers["x-request-id"].startswith("req_")
        assert_untouched(stack, provider)
        assert client.send(request).status_code == 200
