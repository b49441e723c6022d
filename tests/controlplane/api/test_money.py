"""Money in the API: who may, what is shown, what goes on record, and pages of a wallet."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import event, select

from controlplane.api.nodes import NodeKind, global_id
from controlplane.audit.models import AdminEvent
from controlplane.events import OrganizationChanged
from controlplane.ledger.batches import write_batch
from controlplane.limits.state import LimitState
from controlplane.wallets.models import EntryKind, WalletEntry
from controlplane.wallets.queries import balance_limit_id
from tests.controlplane.everything import everything
from tests.controlplane.ledger.conftest import admitted_at_ns, make_record, organization_id

__all__ = ["admitted_at_ns", "make_record", "organization_id"]

CALLERS = ("admin", "billing_viewer", "team_admin", "member", "other_member", "foreign")
WALLET = """{ organization(slug: "acme") { wallet { id balance held available lowBalanceThreshold
  version entries { nodes { kind amount balanceAfter reference note requestId actor { email } } } }
  plan { id } tenantBudget { monthlyBudget prepaidBalance } exchangeRate { rate } } }"""
PAGE = """query($first: Int!, $after: String, $usage: Boolean!) { organization(slug: "acme") { wallet {
  entries(first: $first, after: $after, includeUsage: $usage) {
    nodes { id kind amount balanceAfter requestId }
    pageInfo { hasNextPage hasPreviousPage endCursor } } } } }"""


class Tokens:
    """A token for each kind of caller."""

    def __init__(self, api, tokens: dict[str, str]) -> None:
        self._api = api
        self._tokens = tokens

    async def call(self, caller: str, name: str, /, **wanted: Any) -> Any:
        """Call a mutation; gives its errors' codes, or the code of the fault there was instead."""
        kind = f"{name[0].upper()}{name[1:]}Input"
        text = (
            f"mutation($input: {kind}!) {{ {name}(input: $input) {{ errors {{ code field }} }} }}"
        )
        body = (await self._api.post(self._tokens[caller], text, input=wanted)).json()
        if "errors" in body:
            return [each["extensions"]["code"] for each in body["errors"]]
        return [each["code"] for each in body["data"][name]["errors"]]

    async def ask(self, caller: str, text: str, **variables: Any) -> Any:
        return await self._api.ask(self._tokens[caller], text, **variables)


@pytest.fixture
async def tokens(api, org, foreign) -> Tokens:
    made = {name: await api.token(caller) for name, caller in org.callers().items()}
    made["operator"] = await api.operator_token()
    made["foreign"] = await api.token(foreign.admin)
    return Tokens(api, made)


@pytest.fixture
def place(org) -> str:
    return global_id(NodeKind.ORGANIZATION, org.id, org.id)


async def plan_id(tokens: Tokens) -> str:
    found = await tokens.ask("operator", "{ plans { nodes { id } } }")
    return found["plans"]["nodes"][0]["id"]


async def test_what_is_the_operators_changes_nothing_for_others(
    tokens, place, database, published
) -> None:
    assert await tokens.call("operator", "planCreate", name="Starter") == []
    plan = await plan_id(tokens)
    before = await everything(database)
    calls: list[tuple[str, dict[str, Any]]] = [
        ("planCreate", {"name": "Mine"}),
        ("planUpdate", {"planId": plan, "expectedVersion": 1, "markupPpm": 1}),
        ("planArchive", {"planId": plan, "expectedVersion": 1}),
        ("exchangeRateSet", {"currency": "EUR", "rate": "1"}),
        ("organizationSetPlan", {"organizationId": place, "planId": plan, "expectedVersion": 1}),
        (
            "organizationSetCurrency",
            {"organizationId": place, "currency": "EUR", "expectedVersion": 1},
        ),
        ("walletOpen", {"organizationId": place, "idempotencyKey": "1"}),
    ]
    for caller in CALLERS:
        for name, wanted in calls:
            [code] = await tokens.call(caller, name, **wanted)
            assert code in {"FORBIDDEN", "NOT_FOUND"}, (caller, name)
        assert (
            await tokens.ask(caller, "{ plans { nodes { id } } exchangeRates { nodes { id } } }")
        ) == {
            "plans": None,
            "exchangeRates": None,
        }
    assert await everything(database) == before
    assert published == []


async def test_what_the_operator_does_is_on_record_and_shown(
    tokens, org, place, database, published
) -> None:
    call = tokens.call
    assert await call("operator", "exchangeRateSet", currency="EUR", rate="0.92") == []
    assert await call("operator", "exchangeRateSet", currency="EUR", rate="0.93") == [
        "STALE_VERSION"
    ]
    fees = [{"currency": "EUR", "amount": "0.001"}]
    assert await call("operator", "planCreate", name="Pro", markupPpm=200_000, fees=fees) == []
    plan = await plan_id(tokens)
    on_plan = {"organizationId": place, "planId": plan, "expectedVersion": 1}
    assert await call("operator", "organizationSetPlan", **on_plan) == ["CONFLICT"]
    euro = {"organizationId": place, "currency": "EUR", "expectedVersion": 1}
    assert await call("operator", "organizationSetCurrency", **euro) == []
    assert await call("operator", "organizationSetPlan", **on_plan | {"expectedVersion": 2}) == []
    assert await call("operator", "planUpdate", planId=plan, expectedVersion=1, markupPpm=1) == []
    assert await call("operator", "planArchive", planId=plan, expectedVersion=2, reason="x") == []
    assert published == [OrganizationChanged(org.id, policy=True)] * 3
    shown = """{ organization(slug: "acme") { currency version exchangeRate { rate currency version
      enteredBy { email } } plan { name markupPpm fees { currency amount } archivedAt version } } }"""
    found = (await tokens.ask("billing_viewer", shown))["organization"]
    assert found.pop("plan") | {"archivedAt": None} == {
        "name": "Pro",
        "markupPpm": 1,
        "fees": [{"currency": "EUR", "amount": "0.001"}],
        "archivedAt": None,
        "version": 3,
    }
    rate = {"rate": "0.92", "currency": "EUR", "version": 1, "enteredBy": None}
    assert found == {"currency": "EUR", "version": 3, "exchangeRate": rate}
    entered = await tokens.ask(
        "operator", '{ exchangeRates(currency: "EUR") { nodes { enteredBy { email } } } }'
    )
    assert entered["exchangeRates"]["nodes"] == [{"enteredBy": {"email": "root@example.org"}}]
    async with database.read() as session:
        actions = list(
            await session.scalars(
                select(AdminEvent.action).where(AdminEvent.actor_kind == "operator")
            )
        )
    assert sorted(actions) == [
        "exchange_rate.set",
        "organization.set_currency",
        "organization.set_plan",
        "plan.archive",
        "plan.create",
        "plan.update",
    ]


async def test_a_wallet_shows_what_is_held_to_those_who_read_bills(
    api, tokens, org, place, database, make_record
) -> None:
    opens = {"organizationId": place, "idempotencyKey": "1", "lowBalanceThreshold": "2"}
    assert await tokens.call("operator", "walletOpen", **opens) == []
    top_up = {"organizationId": place, "amount": "10", "reference": "INV-1", "idempotencyKey": "2"}
    assert await tokens.call("operator", "walletTopUp", **top_up) == []
    record = make_record(organization_id=org.id, seq=1, charge_nanos=2_500_000_000)
    async with database.write() as session:
        await write_batch(session, [record])
    api.states[balance_limit_id(org.id)] = LimitState(
        settled=2_500_000_000, held=4_000_000_000, as_of_ns=0
    )
    request = global_id(NodeKind.REQUEST, org.id, UUID(bytes=record.id))
    found = (await tokens.ask("billing_viewer", WALLET))["organization"]
    wallet = found.pop("wallet")
    assert wallet.pop("id")
    assert wallet == {
        "balance": "7.50",
        "held": "4.00",
        "available": "3.50",
        "lowBalanceThreshold": "2.00",
        "version": 1,
        "entries": {
            "nodes": [
                {
                    "kind": "USAGE",
                    "amount": "-2.50",
                    "balanceAfter": "7.50",
                    "reference": None,
                    "note": None,
                    "requestId": request,
                    "actor": None,
                },
                {
                    "kind": "TOP_UP",
                    "amount": "10.00",
                    "balanceAfter": "10.00",
                    "reference": "INV-1",
                    "note": None,
                    "requestId": None,
                    "actor": None,
                },
            ]
        },
    }
    assert found == {"plan": None, "tenantBudget": None, "exchangeRate": None}
    seen = (await tokens.ask("operator", WALLET))["organization"]["wallet"]["entries"]["nodes"]
    assert [each["actor"] for each in seen] == [None, {"email": "root@example.org"}]
    for caller in ("team_admin", "member", "other_member"):
        assert (await tokens.ask(caller, WALLET))["organization"]["wallet"] is None
    assert await tokens.ask("foreign", WALLET) == {"organization": None}
    # What is held or spent cannot be taken away.
    take = {"organizationId": place, "note": "n", "idempotencyKey": "3"}
    before = await everything(database)
    over = {**take, "amount": "-3.500000001"}
    assert await tokens.call("operator", "walletAdjust", **over) == ["INSUFFICIENT_BALANCE"]
    assert await everything(database) == before
    assert await tokens.call("operator", "walletAdjust", **take, amount="-3.5") == []
    refund = {"requestId": request, "amount": "2.5", "idempotencyKey": "4"}
    assert await tokens.call("operator", "walletRefund", **refund) == []
    assert (await tokens.ask("admin", WALLET))["organization"]["wallet"]["balance"] == "6.50"


async def test_pages_of_entries_cost_the_same_wherever_they_are(
    tokens, org, place, database
) -> None:
    opens = {"organizationId": place, "idempotencyKey": "1"}
    assert await tokens.call("operator", "walletOpen", **opens) == []
    async with database.write() as session:
        session.add_all(
            WalletEntry(
                id=UUID(int=seq),
                organization_id=org.id,
                seq=seq,
                kind=EntryKind.TOP_UP if seq % 10 == 0 else EntryKind.USAGE,
                amount_nanos=10**9,
                balance_after_nanos=seq * 10**9,
                at_ns=seq,
            )
            for seq in range(1, 206)
        )
    statements: list[str] = []
    engine = database._readers.sync_engine

    def count(_connection, _cursor, statement, *_rest) -> None:
        statements.append(statement)

    event.listen(engine, "before_cursor_execute", count)
    counts, seqs, after = [], [], None
    for first in (10, 100, 100):
        statements.clear()
        asked = {"first": first, "after": after, "usage": True}
        page = (await tokens.ask("admin", PAGE, **asked))["organization"]["wallet"]["entries"]
        counts.append(len(statements))
        assert page["pageInfo"]["hasPreviousPage"] is (after is not None)
        seqs += [int(each["balanceAfter"].removesuffix(".00")) for each in page["nodes"]]
        after = page["pageInfo"]["endCursor"] if page["pageInfo"]["hasNextPage"] else None
    assert len(set(counts)) == 1
    assert (seqs, after) == (list(range(205, 0, -1)), None)
    asked = {"first": 100, "after": None, "usage": False}
    page = (await tokens.ask("admin", PAGE, **asked))["organization"]["wallet"]["entries"]
    assert [each["balanceAfter"] for each in page["nodes"]] == [
        f"{seq}.00" for seq in range(200, 0, -10)
    ]


@pytest.mark.parametrize("cursor", ["", "nonsense", "c2VxLWRlc2M6", "c2VxLWRlc2M6LTE=", "a" * 500])
async def test_what_is_no_cursor_of_entries_is_refused(api, tokens, org, place, cursor) -> None:
    opens = {"organizationId": place, "idempotencyKey": "1"}
    assert await tokens.call("operator", "walletOpen", **opens) == []
    token = await api.token(org.admin)
    response = await api.post(token, PAGE, first=1, after=cursor, usage=True)
    assert response.json()["errors"][0]["extensions"]["code"] == "BAD_USER_INPUT"


async def test_a_tenant_budget_is_shown_as_it_was_set(tokens, org, place, published) -> None:
    wanted = {
        "organizationId": place,
        "monthlyBudget": "500",
        "hardStop": "600",
        "dailySoftLimit": "35",
        "prepaidBalance": "120",
        "allowedModelTiers": ["standard", "economy"],
        "blockedFeatures": ["bulk_enrichment"],
        "overLimitAction": "DOWNGRADE_THEN_FAIL_CLOSED",
        "downgradeModel": "gpt-4o-mini",
        "policyVersion": "2026-06-tenant-budget-v1",
        "idempotencyKey": "1",
    }
    assert await tokens.call("operator", "tenantBudgetSet", **wanted) == []
    assert published == [OrganizationChanged(org.id, policy=True)]
    assert await tokens.call("operator", "tenantBudgetSet", **wanted) == []
    other = wanted | {"monthlyBudget": "501"}
    assert await tokens.call("operator", "tenantBudgetSet", **other) == ["IDEMPOTENCY_MISMATCH"]
    assert await tokens.call("operator", "tenantBudgetSet", **other | {"idempotencyKey": "2"}) == [
        "STALE_VERSION"
    ]
    shown = """{ organization(slug: "acme") { tenantBudget { monthlyBudget hardStop dailySoftLimit
      prepaidBalance allowedModelTiers blockedFeatures overLimitAction downgradeModel
      queueTimeoutSeconds policyVersion isOperators version } } }"""
    found = (await tokens.ask("admin", shown))["organization"]["tenantBudget"]
    assert found == {
        "monthlyBudget": "500.00",
        "hardStop": "600.00",
        "dailySoftLimit": "35.00",
        "prepaidBalance": "120.00",
        "allowedModelTiers": ["economy", "standard"],
        "blockedFeatures": ["bulk_enrichment"],
        "overLimitAction": "DOWNGRADE_THEN_FAIL_CLOSED",
        "downgradeModel": "gpt-4o-mini",
        "queueTimeoutSeconds": None,
        "policyVersion": "2026-06-tenant-budget-v1",
        "isOperators": True,
        "version": 1,
    }


async def test_who_may_set_a_tenant_budget(tokens, place, database, published) -> None:
    wanted = {"organizationId": place, "monthlyBudget": "5", "policyVersion": "v1"}
    before = await everything(database)
    for caller in ("billing_viewer", "team_admin", "member", "other_member", "foreign"):
        [code] = await tokens.call(caller, "tenantBudgetSet", **wanted)
        assert code in {"FORBIDDEN", "NOT_FOUND"}, caller
    # An admin may, but grants itself no money.
    money = {"prepaidBalance": "5", "idempotencyKey": "1"}
    assert await tokens.call("admin", "tenantBudgetSet", **wanted, **money) == ["FORBIDDEN"]
    assert await everything(database) == before
    assert published == []
    assert await tokens.call("admin", "tenantBudgetSet", **wanted) == []
    again = {**wanted, "expectedVersion": 1}
    assert await tokens.call("operator", "tenantBudgetSet", **again) == []
    # What the operator has set only the operator changes.
    again = {**wanted, "expectedVersion": 2}
    lift = {"organizationId": place, "expectedVersion": 2}
    before = await everything(database)
    assert await tokens.call("admin", "tenantBudgetSet", **again) == ["FORBIDDEN"]
    assert await tokens.call("admin", "tenantBudgetRemove", **lift) == ["FORBIDDEN"]
    assert await everything(database) == before
    assert await tokens.call("operator", "tenantBudgetRemove", **lift) == []
    assert await tokens.call("admin", "tenantBudgetRemove", **lift) == ["NOT_FOUND"]
    assert await tokens.call("admin", "tenantBudgetSet", **wanted) == []
