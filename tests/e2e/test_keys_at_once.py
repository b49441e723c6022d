"""Changes of keys, of who they belong to and of where they are booked hold at the next request."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from comptroller.simulator.running import RunningSimulator
from controlplane.api.nodes import NodeKind, global_id
from controlplane.clock import ManualClock
from tests.stack import Stack, running_stack

SECOND_NS = 1_000_000_000
MODEL = "sim-flat-0.05"

ROTATE = """mutation($input: VirtualKeyRotateInput!) { virtualKeyRotate(input: $input) {
  virtualKey { lastFour rotatedAt previousSecretExpiresAt version } secret replayed
  errors { code message } } }"""
ENABLE = """mutation($input: VirtualKeySetEnabledInput!) { virtualKeySetEnabled(input: $input) {
  virtualKey { status } errors { code message } } }"""
MODELS = """mutation($input: RuleSetInput!) { ruleSet(input: $input) {
  rule { version } errors { code message } } }"""
UPDATE = """mutation($input: VirtualKeyUpdateInput!) { virtualKeyUpdate(input: $input) {
  virtualKey { version } errors { code message } } }"""


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(datetime(2026, 3, 14, 9, 26, 53, tzinfo=UTC))


@pytest.fixture
def timed(tmp_path: Path, provider: RunningSimulator, clock: ManualClock) -> Iterator[Stack]:
    with running_stack(tmp_path, provider, clock=clock) as running:
        yield running


def _ask(stack: Stack, secret: str) -> tuple[int, str | None]:
    answer = httpx.post(
        f"{stack.base_url}/chat/completions",
        json={"model": MODEL, "messages": [{"role": "user", "content": "Hello"}]},
        headers={"authorization": f"Bearer {secret}"},
        timeout=30,
    )
    body = answer.json()
    return answer.status_code, body["error"]["code"] if "error" in body else None


def _change(stack: Stack, document: str, **wanted: Any) -> Any:
    [done] = stack.graphql(document, input=wanted).values()
    assert done["errors"] == []
    return done


def _key_id(stack: Stack, key_id: Any) -> str:
    return global_id(NodeKind.KEY, stack.organization_id, key_id)


def test_without_grace_the_old_secret_ends_with_the_answer(
    stack: Stack, provider: RunningSimulator
) -> None:
    key_id, old = stack.key()
    assert _ask(stack, old) == (200, None)
    done = _change(stack, ROTATE, keyId=_key_id(stack, key_id), idempotencyKey="1")
    assert _ask(stack, old) == (401, "invalid_api_key")
    assert _ask(stack, done["secret"]) == (200, None)
    again = _change(stack, ROTATE, keyId=_key_id(stack, key_id), idempotencyKey="1")
    assert (again["secret"], again["replayed"]) == (None, True)
    assert _ask(stack, done["secret"]) == (200, None)
    assert provider.bill()["requests"] == 3
    assert stack.open_reservations() == 0


def test_the_old_secret_works_until_the_grace_ends(timed: Stack, clock: ManualClock) -> None:
    key_id, old = timed.key()
    clock.advance_ns(SECOND_NS)
    done = _change(timed, ROTATE, keyId=_key_id(timed, key_id), idempotencyKey="1", graceSeconds=60)
    assert done["virtualKey"] == {
        "lastFour": done["secret"][-4:],
        "rotatedAt": "2026-03-14T09:26:54Z",
        "previousSecretExpiresAt": "2026-03-14T09:27:54Z",
        "version": 2,
    }
    clock.advance_ns(60 * SECOND_NS - 1)
    assert _ask(timed, old) == (200, None)
    clock.advance_ns(1)
    assert _ask(timed, old) == (401, "invalid_api_key")
    assert _ask(timed, done["secret"]) == (200, None)


def test_a_key_is_disabled_and_enabled_at_once(stack: Stack, provider: RunningSimulator) -> None:
    key_id, secret = stack.key()
    name = _key_id(stack, key_id)
    assert _ask(stack, secret) == (200, None)
    _change(stack, ENABLE, keyId=name, enabled=False, reason="odd traffic")
    assert _ask(stack, secret)[0] == 403
    assert provider.bill()["requests"] == 1
    _change(stack, ENABLE, keyId=name, enabled=True)
    assert _ask(stack, secret) == (200, None)


def test_allowed_models_hold_at_once(stack: Stack, provider: RunningSimulator) -> None:
    key_id, secret = stack.key()
    scope = {"keyId": _key_id(stack, key_id)}
    _change(stack, MODELS, scope=scope, models=["another-model"])
    assert _ask(stack, secret) == (403, "model_not_allowed")
    assert provider.bill()["requests"] == 0
    _change(stack, MODELS, scope=scope, models=[MODEL], expectedVersion=1)
    assert _ask(stack, secret) == (200, None)


def test_an_expiry_that_is_set_and_taken_away(timed: Stack, clock: ManualClock) -> None:
    key_id, secret = timed.key()
    name = _key_id(timed, key_id)
    _change(timed, UPDATE, keyId=name, expectedVersion=1, expiresAt="2026-03-14T09:26:54Z")
    clock.advance_ns(SECOND_NS - 1)
    assert _ask(timed, secret) == (200, None)
    clock.advance_ns(1)
    assert _ask(timed, secret) == (401, "invalid_api_key")
    _change(timed, UPDATE, keyId=name, expectedVersion=2, expiresAt=None)
    assert _ask(timed, secret) == (200, None)


def test_a_key_that_changes_team_is_under_the_new_teams_rules(stack: Stack) -> None:
    from controlplane.limits.models import ScopeKind  # noqa: PLC0415
    from controlplane.policies.service import set_rule  # noqa: PLC0415

    key_id, secret = stack.key()
    scope = stack.scope(ScopeKind.TEAM)
    stack.change(lambda work: set_rule(work, stack.organization_id, scope, {"models": ()}))
    assert _ask(stack, secret) == (403, "model_not_allowed")
    _change(stack, UPDATE, keyId=_key_id(stack, key_id), expectedVersion=1, teamId=None)
    assert _ask(stack, secret) == (200, None)
