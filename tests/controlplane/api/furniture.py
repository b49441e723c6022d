"""Two organizations with one of everything in each, told apart by every text in them."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID, uuid4

from controlplane.api.nodes import NodeKind, global_id, parse_global_id
from controlplane.authz import SYSTEM
from controlplane.clock import nanoseconds
from controlplane.context import Work
from controlplane.ledger.models import (
    BreakerEventRow,
    DecisionRow,
    LedgerEntryRow,
    ThresholdCrossingRow,
)
from controlplane.ledger.records import invoice_period
from controlplane.limits.models import ScopeKind
from controlplane.limits.nesting import breaker_id
from controlplane.limits.state import LimitState
from controlplane.plans.service import create_plan, set_plan
from controlplane.tenant_budgets.service import Guardrails, set_tenant_budget
from controlplane.wallets.models import EntryKind, WalletEntry
from controlplane.wallets.service import open_wallet, top_up
from tests.controlplane.conftest import member_id

COUNTS = (
    "input_tokens",
    "output_tokens",
    "cached_tokens",
    "cache_write_tokens",
    "reasoning_tokens",
)


@dataclass(frozen=True, slots=True)
class Furnished:
    """An organization and the global ids of what is in it, by the name of their type."""

    slug: str
    organization_id: UUID
    token: str
    ids: dict[str, str]
    more: dict[str, str] = field(default_factory=dict)

    def marks(self) -> set[str]:
        """Every text that tells of this organization: none may be shown to another."""
        named = (*self.ids.values(), *self.more.values())
        return {self.slug, str(self.organization_id), *named}


async def furnish(api, org, slug: str) -> Furnished:
    """Put one of everything into an organization."""
    token = await api.token(org.admin)
    await api.token(org.member)
    place = global_id(NodeKind.ORGANIZATION, org.id, org.id)
    team = global_id(NodeKind.TEAM, org.id, org.team)
    member = global_id(NodeKind.MEMBER, org.id, member_id(org.member))

    async def change(name: str, kind: str, selection: str, /, **wanted: Any) -> Any:
        text = f"mutation($input: {kind}!) {{ {name}(input: $input) {{ {selection} errors {{ message }} }} }}"
        done = (await api.ask(token, text, input=wanted))[name]
        assert done["errors"] == [], done
        return done

    center = await change(
        "costCenterCreate",
        "CostCenterCreateInput",
        "costCenter { id }",
        organizationId=place,
        code=slug,
        name=f"{slug} center",
    )
    center_id = center["costCenter"]["id"]
    other = await change(
        "accessTokenCreate",
        "AccessTokenCreateInput",
        "accessToken { id }",
        name=f"{slug} token",
        idempotencyKey="furniture-token",
    )
    pool = await change(
        "poolCreate",
        "PoolCreateInput",
        "pool { id }",
        organizationId=place,
        name=f"{slug} pool",
    )
    pool_id = pool["pool"]["id"]
    key = await change(
        "virtualKeyCreate",
        "VirtualKeyCreateInput",
        "virtualKey { id }",
        organizationId=place,
        name=f"{slug} key",
        idempotencyKey="furniture",
        ownerId=member,
        teamId=team,
        costCenterId=center_id,
        poolIds=[pool_id],
        requestsPerMinute=10,
        allowedModels=[f"{slug}-model"],
        tags=[{"name": f"{slug}-tag", "value": slug}],
    )
    key_id = key["virtualKey"]["id"]
    budget = await change(
        "budgetUpsert",
        "BudgetUpsertInput",
        "budget { id }",
        scope={"teamId": team},
        period="MONTH",
        limit="12.34",
    )
    # With one of everything that a budget may have.
    taker = await change(
        "budgetUpsert",
        "BudgetUpsertInput",
        "budget { id }",
        scope={"memberInTeam": {"memberId": member, "teamId": team}},
        everyDays={"days": 7},
        limit="2",
        where={"models": [f"{slug}-model"]},
        steps=[{"percent": 80, "action": "DOWNGRADE", "model": f"{slug}-model"}],
    )
    giver = await change(
        "budgetUpsert",
        "BudgetUpsertInput",
        "budget { id }",
        scope={"keyId": key_id},
        everyDays={"days": 7, "anchor": "2026-03-14"},
        limit="2",
        where={"models": [f"{slug}-model"]},
    )
    labelled = await change(
        "budgetUpsert",
        "BudgetUpsertInput",
        "budget { id }",
        scope={"label": {"organizationId": place, "kind": "FEATURE", "label": f"{slug}-f"}},
        lifetime={"startsAt": "2026-01-01T00:00:00Z"},
        limit="2",
    )
    pooled = await change(
        "budgetUpsert",
        "BudgetUpsertInput",
        "budget { id }",
        scope={"poolId": pool_id},
        period="MONTH",
        limit="9",
    )
    concurrency = await change(
        "concurrencyLimitSet",
        "ConcurrencyLimitSetInput",
        "concurrencyLimit { id }",
        scope={"teamId": team},
        requests=3,
    )
    for each in (taker, giver, pooled, labelled):
        api.states[uuid_of(each["budget"]["id"])] = LimitState(settled=1, held=0, as_of_ns=0)
    breaker = await change(
        "breakerSet", "BreakerSetInput", "breaker { id }", scope={"teamId": team}, perMinute="5"
    )
    rule = await change(
        "ruleSet",
        "RuleSetInput",
        "rule { id }",
        scope={"teamId": team},
        models=[slug],
        fixed=[{"label": "FEATURE", "value": slug}],
    )
    await _events(api, org, uuid_of(budget["budget"]["id"]))
    api.states[uuid_of(budget["budget"]["id"])] = LimitState(settled=1, held=0, as_of_ns=0)
    request = await _request(api, org, slug, key_id)
    money = await _money(api, org, slug, uuid_of(request))
    ids = {
        **money,
        "Organization": place,
        "Team": team,
        "Member": member,
        "VirtualKey": key_id,
        "CostCenter": center_id,
        "AccessToken": other["accessToken"]["id"],
        "Budget": taker["budget"]["id"],
        "Breaker": breaker["breaker"]["id"],
        "Rule": rule["rule"]["id"],
        "RateLimit": _as(NodeKind.RATE_LIMIT, org.id, key_id),
        "RequestLog": request,
        "Pool": pool_id,
        "ConcurrencyLimit": concurrency["concurrencyLimit"]["id"],
    }
    more = {"giver": giver["budget"]["id"], "monthly": budget["budget"]["id"]}
    return Furnished(slug, org.id, token, ids, more)


async def _money(api, org, slug: str, request_id: UUID) -> dict[str, str]:
    """Put the organization on a plan, and have the request paid from a wallet."""
    installation = api.plane.installation
    async with api.plane.database.write() as session:
        work = Work(session, installation, SYSTEM, installation.now())
        plan = await create_plan(work, {"name": f"{slug} plan", "fees": {"USD": 1}})
        await set_plan(work, org.id, plan.id, expected_version=1)
        wallet = await open_wallet(work, org.id, idempotency_key="furniture-wallet")
        credit = {"amount_nanos": 10**9, "reference": f"{slug} payment"}
        entry = await top_up(work, org.id, idempotency_key="furniture-credit", **credit)
        paid = WalletEntry(
            id=request_id,
            organization_id=org.id,
            seq=2,
            kind=EntryKind.USAGE,
            amount_nanos=-5_000_000,
            balance_after_nanos=995_000_000,
            at_ns=entry.at_ns,
        )
        session.add(paid)
        wanted = Guardrails(monthly_budget_nanos=10**12, policy_label=f"{slug} policy")
        guarded = Work(session, installation, org.admin, installation.now())
        budget = await set_tenant_budget(guarded, org.id, wanted)
    return {
        "TenantBudget": global_id(NodeKind.TENANT_BUDGET, org.id, budget.id),
        "Plan": global_id(NodeKind.PLAN, UUID(int=0), plan.id),
        "Wallet": global_id(NodeKind.WALLET, org.id, wallet.id),
        "WalletEntry": global_id(NodeKind.WALLET_ENTRY, org.id, entry.id),
    }


def uuid_of(global_name: str) -> UUID:
    """Read the id of the row that a global id names."""
    found = parse_global_id(global_name)
    assert found is not None
    return found.id


def _as(kind: NodeKind, organization_id: UUID, other: str) -> str:
    return global_id(kind, organization_id, uuid_of(other))


def request_row(slug: str, at: datetime, **facts: Any) -> DecisionRow:
    """Make the record of an allowed request whose every text begins with `slug`."""
    at_ns = nanoseconds(at) - 1
    values: dict[str, Any] = {
        "id": uuid4(),
        **dict.fromkeys(COUNTS, 3),
        **dict.fromkeys(("held_nanos", "cost_nanos", "charge_nanos", "latency_ns"), 0),
        "usage_source": "provider",
        "route": "/v1/chat/completions",
        "tags": {f"{slug}-tag": slug},
        "feature": f"{slug}-feature",
        "agent": f"{slug}-agent",
        "end_user": f"{slug}-user",
        "session": f"{slug}-session",
        "environment": f"{slug}-environment",
        "requested_model": f"{slug}-model",
        "served_model": f"{slug}-model",
        "provider": f"{slug}-provider",
        "policy_version": slug,
        "currency": "USD",
        "invoice_period": invoice_period(at_ns),
        "decision": "allowed",
        "steps": [{"limitId": str(uuid4()), "percent": 80, "action": "downgrade", "model": slug}],
        "http_status": 200,
        "admitted_at_ns": at_ns,
        "finished_at_ns": at_ns,
        "streamed": False,
        "client_disconnected": False,
        "engine_version": "1",
        "seen": "{}",
    }
    return DecisionRow(**(values | facts))


async def _events(api, org, budget_id: UUID) -> None:
    """Put a crossing of the budget and an opening of the team's breaker on record."""
    now_ns = api.plane.installation.clock.wall_ns()
    crossing = crossing_row(org.id, budget_id, uuid4(), now_ns)
    opened = breaker_event_row(org.id, org.team, uuid4(), now_ns)
    async with api.plane.database.write() as session:
        session.add_all([crossing, opened])


def crossing_row(
    organization_id: UUID, limit_id: UUID, row_id: UUID, at_ns: int, **facts: Any
) -> ThresholdCrossingRow:
    """Make a crossing of 80 % of a budget of 12.34."""
    values: dict[str, Any] = {
        "period_start_ns": at_ns - 1,
        "percent": 80,
        "settled": 10_000_000_000,
        "cap": 12_340_000_000,
    }
    return ThresholdCrossingRow(
        id=row_id,
        organization_id=organization_id,
        limit_id=limit_id,
        at_ns=at_ns,
        **(values | facts),
    )


def breaker_event_row(
    organization_id: UUID, team_id: UUID, row_id: UUID, at_ns: int, **facts: Any
) -> BreakerEventRow:
    """Make an opening of the minute window of a team's breaker, at 5.00."""
    values: dict[str, Any] = {
        "limit_id": breaker_id(ScopeKind.TEAM, team_id, 60),
        "scope_kind": ScopeKind.TEAM,
        "scope_id": team_id,
        "is_open": True,
        "sum_nanos": 6_000_000_000,
        "cap_nanos": 5_000_000_000,
    }
    return BreakerEventRow(
        id=row_id, organization_id=organization_id, at_ns=at_ns, **(values | facts)
    )


async def _request(api, org, slug: str, key_id: str) -> str:
    """Put a request on record with its ledger entry."""
    now_ns = api.plane.installation.clock.wall_ns()
    path = {
        "id": uuid4(),
        "organization_id": org.id,
        "key_id": uuid_of(key_id),
        "team_id": org.team,
        "member_id": member_id(org.member),
    }
    figures = {"cost_nanos": 5_000_000, "charge_nanos": 5_000_000, "usage_source": "provider"}
    decision = request_row(slug, api.plane.installation.now(), **path, **figures)
    entry = LedgerEntryRow(
        **path,
        **figures,
        model=f"{slug}-model",
        provider=f"{slug}-provider",
        admitted_at_ns=now_ns - 1,
        settled_at_ns=now_ns - 1,
        input_tokens=3,
        output_tokens=3,
        requests=1,
        overrun_nanos=0,
    )
    async with api.plane.database.write() as session:
        session.add_all([decision, entry])
    return global_id(NodeKind.REQUEST, org.id, decision.id)
