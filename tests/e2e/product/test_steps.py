"""B9 and B10 by the steps of a budget: told once, and nothing that a limit did is silent."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import httpx
import pytest

from controlplane.money import parse_money
from tests.e2e.product.tenant import Key, Tenant, limit_object
from tests.proxy.untouched import wait_until

TenantAt = Callable[[str], Tenant]
NOON = "2026-03-14T12:00:00Z"
MONTH: dict[str, Any] = {"resets_at": "2026-04-01T00:00:00+00:00", "retry_after_s": 1_512_000}
OVER = "x-comptroller-over-limit"
CODE = "key_budget_exceeded"
CROSSINGS = """thresholdCrossings { nodes {
  percent periodStart settled cap at budget { id } } }"""


def _refused(key: Key, cap: str, used: str, **given: Any) -> dict[str, Any]:
    figures = {"cap": cap, "used": used, "held": "0.00", "output_tokens_that_fit": 0}
    return limit_object("key", key.uuid, "calendar_month", **{**MONTH, **figures, **given})


@contextmanager
def _waiting(tenant: Tenant, key: Key, **asked: Any) -> Iterator[Future[httpx.Response]]:
    """Ask for what has to wait; it does when this is entered."""
    enforcer = tenant.stack.comptroller.proxy._enforcer
    with ThreadPoolExecutor(1) as thread:
        future = thread.submit(tenant.ask, key, **asked)
        wait_until(lambda: future.done() or len(enforcer._waiting) == 1)
        assert not future.done(), future.result().text
        yield future


def _crossings(tenant: Tenant) -> list[tuple[Any, ...]]:
    """List what was told, the oldest first."""
    tenant.stack.ledger()
    nodes = tenant.ask_graphql(CROSSINGS)["thresholdCrossings"]["nodes"]
    found = [(each["at"], each["percent"], each["settled"], each["cap"]) for each in nodes]
    return sorted(found)


def test_b9_each_threshold_is_told_once_a_period_by_what_books_the_money(
    tenant_at: TenantAt,
) -> None:
    tenant = tenant_at(NOON)
    key = tenant.key()
    steps = [{"percent": percent, "action": "NOTIFY"} for percent in (1, 50, 80, 100)]
    budget = tenant.budget({"keyId": key.id}, "0.20", period="DAY", steps=steps)
    told = []
    for _ in range(4):
        tenant.spend(key)
        told.append(len(_crossings(tenant)))
        tenant.wait(60)
    assert told == [1, 2, 2, 4]
    expected = limit_object(
        "key",
        key.uuid,
        "calendar_day",
        resets_at="2026-03-15T00:00:00+00:00",
        retry_after_s=42_960,
        cap="0.20",
        used="0.20",
        held="0.00",
        output_tokens_that_fit=0,
    )
    tenant.refuse(key, 402, CODE, limit=expected)
    # A changed cap tells nothing a second time.
    tenant.mutate("budgetUpsert", budgetId=budget, limit="0.30", expectedVersion=1)
    tenant.spend(key)
    first = [
        ("2026-03-14T12:00:00Z", 1, "0.05", "0.20"),
        ("2026-03-14T12:01:00Z", 50, "0.10", "0.20"),
        ("2026-03-14T12:03:00Z", 80, "0.20", "0.20"),
        ("2026-03-14T12:03:00Z", 100, "0.20", "0.20"),
    ]
    assert _crossings(tenant) == first
    tenant.go_to("2026-03-15T00:00:00Z")
    tenant.spend(key)
    assert _crossings(tenant) == [*first, ("2026-03-15T00:00:00Z", 1, "0.05", "0.30")]
    nodes = tenant.ask_graphql(CROSSINGS)["thresholdCrossings"]["nodes"]
    assert {each["budget"]["id"] for each in nodes} == {budget}
    assert nodes[0]["periodStart"] == "2026-03-15T00:00:00Z"


@pytest.mark.parametrize(
    ("code", "status"),
    [(None, None), ("out_of_money", None), (None, 403), ("come_later", 429)],
)
def test_b10_reject_says_what_its_step_says(
    tenant_at: TenantAt, code: str | None, status: int | None
) -> None:
    tenant = tenant_at(NOON)
    key = tenant.key()
    steps = [{"percent": 100, "action": "REFUSE", "code": code, "status": status}]
    tenant.budget({"keyId": key.id}, "0.09", steps=steps)
    tenant.spend(key)
    retry = ("1512000" if status == 429 else None, "false")
    expected = _refused(key, "0.09", "0.05")
    refused = tenant.refuse(key, status or 402, code or CODE, limit=expected, retry=retry)
    assert refused.record.over_limit_action == "reject"


def test_b10_confirm_past_a_percent_of_a_hard_limit(tenant_at: TenantAt) -> None:
    tenant = tenant_at(NOON)
    key = tenant.key()
    steps = [{"percent": 50, "action": "CONFIRM"}]
    tenant.budget({"keyId": key.id}, "0.10", steps=steps)
    assert OVER not in tenant.spend(key).headers
    limit = {
        "scope": "key",
        "scope_id": str(key.uuid),
        "resource": "spend",
        "window": "calendar_month",
    }
    asked = tenant.refuse(key, 403, "confirmation_required", limit=limit)
    assert asked.record.over_limit_action == "confirm"
    foretold = tenant.estimate(key)
    assert foretold["allowed"] is True
    assert [each["action"] for each in foretold["over_limit_steps"]] == ["confirm"]
    header = {"x-comptroller-confirm": asked.error["confirm_token"]}
    assert tenant.spend(key, headers=header).headers[OVER] == "confirm"
    record = tenant.last_record()
    assert [(each["percent"], each["action"]) for each in record.steps] == [(50, "confirm")]
    # Nothing that does not fit can be confirmed.
    tenant.refuse(key, 402, CODE, limit=_refused(key, "0.10", "0.10"))


def test_b10_queue_passes_as_soon_as_the_budget_is_raised(tenant_at: TenantAt) -> None:
    tenant = tenant_at(NOON)
    key = tenant.key()
    steps = [{"percent": 100, "action": "QUEUE", "timeoutSeconds": 300}]
    budget = tenant.budget({"keyId": key.id}, "0.05", steps=steps)
    tenant.spend(key)
    before = tenant.state()
    with _waiting(tenant, key) as waiting:
        assert tenant.state() == before
        tenant.wait(20)
        tenant.mutate("budgetUpsert", budgetId=budget, limit="0.10", expectedVersion=1)
        answer = waiting.result(30)
    assert (answer.status_code, answer.headers[OVER]) == (200, "queue,waited=20000ms")
    record = tenant.last_record()
    assert (record.waited_ns, record.over_limit_action) == (20_000_000_000, "queue")
    assert [(each["percent"], each["action"]) for each in record.steps] == [(100, "queue")]


def test_b10_downgrade_then_queue_then_refuse(tenant_at: TenantAt) -> None:
    tenant = tenant_at(NOON)
    key = tenant.key()
    steps = [
        {"percent": 100, "action": "DOWNGRADE", "model": "economy"},
        {"percent": 100, "action": "QUEUE", "timeoutSeconds": 5},
        {"percent": 100, "action": "REFUSE", "code": "all_spent", "status": 402},
    ]
    tenant.budget({"keyId": key.id}, "0.06", steps=steps)
    headers = [tenant.spend(key).headers.get(OVER) for _ in range(2)]
    assert headers == [None, "downgrade=economy"]
    before = tenant.state()
    with _waiting(tenant, key) as waiting:
        tenant.wait(5)
        answer = waiting.result(30)
    assert answer.status_code == 402
    error = answer.json()["error"]
    assert (error["code"], error["limit"]["used"]) == ("all_spent", "0.06")
    assert tenant.state() == before
    record = tenant.last_record()
    assert (record.decision, record.code, record.waited_ns) == (
        "refused",
        "all_spent",
        5_000_000_000,
    )


def test_b10_what_waits_for_open_requests_passes_when_they_end_and_says_how_long_it_waited(
    tenant_at: TenantAt,
) -> None:
    tenant = tenant_at(NOON)
    key = tenant.key()
    tenant.budget({"keyId": key.id}, "0.055", hold="BOUND")
    with tenant.running(key, max_tokens=900):
        waits = _waiting(tenant, key)
        waiting = waits.__enter__()
        tenant.wait(7)
        assert not waiting.done()
    answer = waiting.result(30)
    waits.__exit__(None, None, None)
    assert (answer.status_code, answer.headers[OVER]) == (200, "waited=7000ms")
    record = tenant.last_record()
    assert (record.waited_ns, record.over_limit_action) == (7_000_000_000, "wait")
    assert record.steps == []


@pytest.mark.parametrize("wait_s", [0, 3, None], ids=["at once", "after 3 s", "after 30 s"])
def test_b10_what_waits_for_open_requests_too_long_is_told_so(
    tenant_at: TenantAt, wait_s: int | None
) -> None:
    tenant = tenant_at(NOON)
    key = tenant.key()
    tenant.budget({"keyId": key.id}, "0.055", hold="BOUND")
    if wait_s is not None:
        tenant.mutate("ruleSet", scope={"keyId": key.id}, holdWaitS=wait_s)
    seconds = 30 if wait_s is None else wait_s
    with tenant.running(key, max_tokens=900):
        [bound] = _held(tenant)
        if seconds:
            with _waiting(tenant, key) as waiting:
                tenant.wait(seconds)
                answer = waiting.result(30)
        else:
            answer = tenant.ask(key)
        assert answer.status_code == 402
        limit = answer.json()["error"]["limit"]
        # What the stream has cost by now is not held any more, but used.
        taken = [parse_money(limit.pop(name)) for name in ("used", "held")]
        assert sum(taken) == parse_money(bound)
        assert limit == limit_object(
            "key",
            key.uuid,
            "calendar_month",
            waits_for="open_requests",
            cap="0.055",
            output_tokens_that_fit=0,
        )
        assert (tenant.stack.open_reservations(), tenant.stack.ledger()) == (1, [])
        [record] = tenant.stack.records()
        assert (record.decision, record.waited_ns) == ("refused", seconds * 1_000_000_000)
        assert record.over_limit_action == ("wait,reject" if seconds else "reject")


def _held(tenant: Tenant) -> list[str]:
    found = tenant.ask_graphql("budgets { nodes { state { held } } }")["budgets"]["nodes"]
    return [each["state"]["held"] for each in found]
