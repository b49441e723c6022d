"""Changes of the control plane hold for the very next request."""

from __future__ import annotations

import httpx

from comptroller.simulator.running import RunningSimulator
from controlplane.limits.models import ScopeKind
from controlplane.money import parse_money
from tests.stack import Stack

CREATE = """mutation($input: VirtualKeyCreateInput!) {
  virtualKeyCreate(input: $input) { virtualKey { id } secret errors { code message } } }"""
REVOKE = """mutation($input: VirtualKeyRevokeInput!) {
  virtualKeyRevoke(input: $input) { virtualKey { status } errors { code message } } }"""


def _ask(stack: Stack, secret: str, model: str = "sim-flat-0.05") -> httpx.Response:
    return httpx.post(
        f"{stack.base_url}/chat/completions",
        json={"model": model, "messages": [{"role": "user", "content": "Hello"}]},
        headers={"authorization": f"Bearer {secret}"},
        timeout=30,
    )


def _organization(stack: Stack) -> dict:
    slug = stack.run(lambda: _slug(stack))
    return stack.graphql("query($s: String!) { organization(slug: $s) { id slug } }", s=slug)[
        "organization"
    ]


async def _slug(stack: Stack) -> str:
    from controlplane.tenancy.queries import organization_by_id  # noqa: PLC0415

    async with stack.comptroller.database.read() as session:
        return (await organization_by_id(session, stack.organization_id)).slug


def test_a_key_made_and_revoked_by_graphql(stack: Stack, provider: RunningSimulator) -> None:
    organization = _organization(stack)
    created = stack.graphql(
        CREATE,
        input={"organizationId": organization["id"], "name": "app", "idempotencyKey": "one"},
    )["virtualKeyCreate"]
    assert created["errors"] == []
    assert _ask(stack, created["secret"]).status_code == 200
    revoked = stack.graphql(REVOKE, input={"keyId": created["virtualKey"]["id"]})
    assert revoked["virtualKeyRevoke"]["virtualKey"]["status"] == "REVOKED"
    refused = _ask(stack, created["secret"])
    assert refused.status_code == 401
    assert refused.json()["error"]["code"] == "invalid_api_key"
    assert provider.bill()["requests"] == 1
    assert len(stack.records()) == 1


def test_a_lowered_budget(stack: Stack, provider: RunningSimulator) -> None:
    key_id, secret = stack.key()
    scope = stack.scope(ScopeKind.KEY, key_id)
    version = stack.budget(scope, "1.00")
    assert _ask(stack, secret).status_code == 200
    stack.budget(scope, "0.09", version=version)
    assert _ask(stack, secret).status_code == 402
    assert stack.ledger_nanos() == provider.bill()["total_nanos"] == parse_money("0.05")


def test_a_new_budget_counts_what_was_spent_before_it(stack: Stack) -> None:
    key_id, secret = stack.key()
    assert _ask(stack, secret).status_code == 200
    stack.budget(stack.scope(ScopeKind.KEY, key_id), "0.09")
    refused = _ask(stack, secret)
    assert refused.status_code == 402
    assert refused.json()["error"]["limit"]["used"] == "0.05"


def test_a_removed_model(stack: Stack, provider: RunningSimulator) -> None:
    from controlplane.policies.service import set_rule  # noqa: PLC0415

    _, secret = stack.key()
    scope = stack.scope(ScopeKind.TEAM)
    assert _ask(stack, secret).status_code == 200
    stack.change(lambda work: set_rule(work, stack.organization_id, scope, {"models": ("gpt-4o",)}))
    refused = _ask(stack, secret)
    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "model_not_allowed")
    assert provider.bill()["requests"] == 1
    assert stack.open_reservations() == 0
