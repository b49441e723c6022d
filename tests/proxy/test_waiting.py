"""What fails on running requests alone waits for them, holds nothing, and is told in the end."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from comptroller.simulator.running import RunningSimulator
from controlplane.keys.service import revoke_key
from controlplane.limits.models import Hold, ScopeKind
from tests.proxy.asking import headers
from tests.proxy.limited import (
    CHEAP,
    TOKEN_NANOS,
    WHOLE,
    Asking,
    ask,
    body,
    budget,
    held_nanos,
    limited_installation,
    record_of,
    rule,
    until_asked,
    until_waiting,
    waiting,
)
from tests.proxy.untouched import wait_until
from tests.stack import Stack

FIFTY = {"model": WHOLE, "max_tokens": 50}


def _first(stack: Stack, provider: RunningSimulator, secret: str, latency_ms: int) -> Asking:
    """Let a request hold all but ten tokens of the budget for a while, and use ten of fifty."""
    first = Asking(stack, secret, f"output=10 latency_ms={latency_ms}", **FIFTY)
    until_asked(provider)
    return first


@pytest.fixture
def secret(limited: Stack) -> str:
    """A key of an organization that may spend sixty tokens."""
    budget(limited, limited.scope(ScopeKind.ORGANIZATION), "0.06", hold=Hold.BOUND)
    return limited.key()[1]


def test_a_request_that_waits_is_admitted_when_another_has_settled(
    limited: Stack, seller: RunningSimulator, secret: str
) -> None:
    first = _first(limited, seller, secret, 500)
    second = Asking(limited, secret, "output=50", **FIFTY)
    until_waiting(limited)
    assert held_nanos(limited) == {"organization": 50 * TOKEN_NANOS}
    assert len(seller.requests()) == 1
    assert [each.answer().status_code for each in (first, second)] == [200, 200]
    assert "x-comptroller-over-limit" not in first.answer().headers
    record = record_of(limited, second.answer())
    assert record.decision == "allowed"
    assert record.waited_ns > 0
    waited = second.answer().headers["x-comptroller-over-limit"]
    assert waited == f"waited={record.waited_ns // 1_000_000}ms"
    assert (record.over_limit_action, record.steps) == ("wait", [])
    assert limited.ledger_nanos() == seller.bill()["total_nanos"] == 60 * TOKEN_NANOS
    assert limited.open_reservations() == 0


def test_it_gives_up_when_its_time_is_over(
    limited: Stack, seller: RunningSimulator, secret: str
) -> None:
    rule(limited, limited.scope(ScopeKind.ORGANIZATION), hold_wait_s=1, refusal_detail="all")
    first = _first(limited, seller, secret, 3000)
    begun = time.monotonic()
    refused = ask(limited, secret, "output=50", **FIFTY)
    assert 1.0 <= time.monotonic() - begun < 2.5
    assert refused.status_code == 402
    assert "retry-after" not in refused.headers
    error = refused.json()["error"]
    assert error["code"] == "tenant_budget_exceeded"
    limit = error["limit"]
    assert (limit["waits_for"], limit["resets_at"], limit["retry_after_s"]) == (
        "open_requests",
        None,
        None,
    )
    figures = [limit[name] for name in ("cap", "used", "held", "requested")]
    assert figures == ["0.06", "0.00", "0.05", "0.05"]
    assert limit["output_tokens_that_fit"] == 10
    record = record_of(limited, refused)
    assert (record.decision, record.code) == ("refused", "tenant_budget_exceeded")
    assert record.over_limit_action == "wait,reject"
    assert 1_000_000_000 <= record.waited_ns < 2_500_000_000
    assert first.answer().status_code == 200
    assert seller.bill()["requests"] == 1
    assert limited.open_reservations() == 0


def test_a_policy_can_say_that_nobody_waits(
    limited: Stack, seller: RunningSimulator, secret: str
) -> None:
    rule(limited, limited.scope(ScopeKind.ORGANIZATION), hold_wait_s=0)
    first = _first(limited, seller, secret, 500)
    refused = ask(limited, secret, "output=50", **FIFTY)
    assert refused.status_code == 402
    record = record_of(limited, refused)
    assert (record.over_limit_action, record.waited_ns) == ("reject", 0)
    assert first.answer().status_code == 200


def test_it_stops_waiting_when_settled_money_alone_leaves_no_room(
    limited: Stack, seller: RunningSimulator, secret: str
) -> None:
    first = Asking(limited, secret, "output=50 latency_ms=400", **FIFTY)
    until_asked(seller)
    refused = ask(limited, secret, "output=50", **FIFTY)
    assert refused.json()["error"]["limit"]["waits_for"] == "period"
    assert record_of(limited, refused).over_limit_action == "wait,reject"
    assert first.answer().status_code == 200


def test_a_raised_budget_lets_it_pass_at_once(
    limited: Stack, seller: RunningSimulator, secret: str
) -> None:
    first = _first(limited, seller, secret, 1500)
    second = Asking(limited, secret, "output=50", **FIFTY)
    until_waiting(limited)
    scope = limited.scope(ScopeKind.ORGANIZATION)
    budget(limited, scope, "0.10", hold=Hold.BOUND, version=1)
    assert second.answer().status_code == 200
    assert first.is_alive()
    assert first.answer().status_code == 200


def test_whoever_leaves_while_it_waits_holds_nothing_and_is_on_record(
    limited: Stack, seller: RunningSimulator, secret: str
) -> None:
    first = _first(limited, seller, secret, 1500)
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(
            f"{limited.base_url}/chat/completions",
            json=body("output=50", **FIFTY),
            headers=headers(secret),
            timeout=0.4,
        )
    wait_until(lambda: waiting(limited) == 0)
    assert first.is_alive()
    assert limited.open_reservations() == 1
    assert held_nanos(limited) == {"organization": 50 * TOKEN_NANOS}
    wait_until(lambda: len(limited.records()) == 1)
    [record] = limited.records()
    assert (record.decision, record.client_disconnected) == ("refused", True)
    assert (record.over_limit_action, record.charge_nanos) == ("wait", 0)
    assert first.answer().status_code == 200
    assert seller.bill()["requests"] == 1


CHANGES: dict[str, tuple[Callable[[Stack, object], object], int, str]] = {
    "key": (
        lambda stack, key_id: stack.change(
            lambda work: revoke_key(work, stack.organization_id, key_id)  # type: ignore[arg-type]
        ),
        401,
        "invalid_api_key",
    ),
    "model": (
        lambda stack, _: rule(stack, stack.scope(ScopeKind.ORGANIZATION), models=[CHEAP]),
        403,
        "model_not_allowed",
    ),
}


@pytest.mark.parametrize("changed", CHANGES)
def test_what_is_switched_off_while_it_waits_is_refused_and_holds_nothing(
    limited: Stack, seller: RunningSimulator, secret: str, changed: str
) -> None:
    first = _first(limited, seller, secret, 600)
    key_id, own = limited.key()
    second = Asking(limited, own, "output=50", **FIFTY)
    until_waiting(limited)
    change, status, code = CHANGES[changed]
    change(limited, key_id)
    refused = second.answer()
    assert (refused.status_code, refused.json()["error"]["code"]) == (status, code)
    record = record_of(limited, refused)
    assert (record.decision, record.code, record.charge_nanos) == ("refused", code, 0)
    assert first.answer().status_code == 200
    assert limited.open_reservations() == 0
    assert seller.bill()["requests"] == 1
    assert limited.ledger_nanos() == 10 * TOKEN_NANOS


def test_a_shutdown_ends_what_waits(tmp_path: Path, seller: RunningSimulator) -> None:
    with limited_installation(tmp_path, seller, shutdown_grace_s=2) as closing:
        budget(closing, closing.scope(ScopeKind.ORGANIZATION), "0.06", hold=Hold.BOUND)
        secret = closing.key()[1]
        first = _first(closing, seller, secret, 700)
        second = Asking(closing, secret, "output=50", **FIFTY)
        until_waiting(closing)
        closing.run(closing.comptroller.proxy.stop)
        ended = second.answer()
        assert (ended.status_code, ended.json()["error"]["code"]) == (503, "server_shutting_down")
        assert ended.headers["x-should-retry"] == "true"
        assert first.answer().status_code == 200
        assert closing.open_reservations() == 0
        record = record_of(closing, ended)
        assert (record.decision, record.code) == ("refused", "server_shutting_down")
        assert closing.ledger_nanos() == seller.bill()["total_nanos"] == 10 * TOKEN_NANOS
