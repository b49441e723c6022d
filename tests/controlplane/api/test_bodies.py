"""A body that does not come is not waited for."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from controlplane.api import http
from controlplane.api.http import Refused, read_body


async def test_a_body_that_stalls_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else it keeps the server from stopping until it is killed."""
    monkeypatch.setattr(http, "BODY_TIMEOUT_S", 0.01)
    parts: Any = iter([{"type": "http.request", "body": b"{", "more_body": True}])

    async def receive() -> Any:
        for part in parts:
            return part
        return await asyncio.Event().wait()

    with pytest.raises(Refused) as refused:
        await read_body(receive, {"content-length": "10"})
    assert refused.value.status == 408
    assert ("connection", "close") in refused.value.headers
