"""What `node(id:)` finds: any object by its global id, if the caller may see it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from uuid import UUID

from controlplane.access.graphql import NO_ORGANIZATION, access_token_of
from controlplane.access.models import AccessToken
from controlplane.access.queries import may_manage
from controlplane.api.nodes import BREAKER_NODES, GlobalId, Node, NodeKind
from controlplane.api.organization import organization_of
from controlplane.api.request import Info
from controlplane.api.scopes import sees_scope
from controlplane.authz import Action, Reach, Target, may
from controlplane.breakers.graphql import breaker_of
from controlplane.exchange.graphql import exchange_rate_of
from controlplane.exchange.models import ExchangeRate
from controlplane.installation.graphql import installation_limit_of
from controlplane.keys.graphql import key_of
from controlplane.keys.queries import target_of
from controlplane.ledger.models import DecisionRow
from controlplane.limits.graphql import budget_of, concurrency_limit_of, rate_limit_of
from controlplane.limits.installation import NOWHERE, sees_installation
from controlplane.limits.models import InstallationLimit, Limit, LimitKind
from controlplane.limits.subjects import Scope, scope_of_row
from controlplane.plans.graphql import plan_of
from controlplane.policies.graphql import rule_of
from controlplane.policies.models import Rule
from controlplane.pools.graphql import pool_of
from controlplane.scope import owned
from controlplane.tenancy.graphql import cost_center_of, member_of, team_of
from controlplane.tenant_budgets.graphql import load_tenant_budget
from controlplane.usage.filters import RequestFilter
from controlplane.usage.graphql import request_of
from controlplane.usage.queries import page_of_requests
from controlplane.wallets.graphql import load_wallet, wallet_entry_of
from controlplane.wallets.models import WalletEntry

# An object, and whether the caller may see it.
Found = tuple[Node, bool]
Find = Callable[[Info, GlobalId], Awaitable[Found | None]]


async def find_node(info: Info, name: GlobalId) -> Node | None:
    """Find an object; None when there is none or the caller may not see it."""
    found = await _FINDERS[name.kind](info, name)
    if found is None:
        return None
    node, seen = found
    return node if seen else None


async def _organization(info: Info, name: GlobalId) -> Found | None:
    row = await info.context.loaders.organizations.load(name.id)
    return None if row is None else (organization_of(row), _is_inside(info, row.id))


async def _team(info: Info, name: GlobalId) -> Found | None:
    row = await info.context.loaders.teams.load((name.organization_id, name.id))
    if row is None:
        return None
    return team_of(row), _sees(info, Target(row.organization_id, team_id=row.id))


async def _member(info: Info, name: GlobalId) -> Found | None:
    row = await info.context.loaders.members.load((name.organization_id, name.id))
    if row is None:
        return None
    target = Target(row.organization_id, team_id=row.team_id, member_id=row.id)
    return member_of(row), _sees(info, target)


async def _cost_center(info: Info, name: GlobalId) -> Found | None:
    row = await info.context.loaders.cost_centers.load((name.organization_id, name.id))
    return None if row is None else (cost_center_of(row), _is_inside(info, row.organization_id))


async def _key(info: Info, name: GlobalId) -> Found | None:
    row = await info.context.loaders.keys.load((name.organization_id, name.id))
    if row is None:
        return None
    shown = key_of(row, info.context.backend.installation.now())
    return shown, _sees(info, target_of(row))


async def _budget(info: Info, name: GlobalId) -> Found | None:
    row = await _limit(info, name, LimitKind.BUDGET)
    return None if row is None else (budget_of(row), await _sees_limit(info, row))


async def _concurrency_limit(info: Info, name: GlobalId) -> Found | None:
    row = await _limit(info, name, LimitKind.CONCURRENCY)
    return None if row is None else (concurrency_limit_of(row), await _sees_limit(info, row))


async def _limit(info: Info, name: GlobalId, kind: LimitKind) -> Limit | None:
    row = await info.context.loaders.limits.load((name.organization_id, name.id))
    is_live = row is not None and row.kind is kind and row.archived_at is None
    return row if is_live else None


async def _sees_limit(info: Info, row: Limit) -> bool:
    return await sees_scope(info, row.organization_id, scope_of_row(row))


async def _rate_limit(info: Info, name: GlobalId) -> Found | None:
    pair = await info.context.loaders.rates.load((name.organization_id, name.id))
    if pair is None:
        return None
    seen = await sees_scope(info, name.organization_id, pair.scope)
    return rate_limit_of(name.organization_id, pair), seen


async def _pool(info: Info, name: GlobalId) -> Found | None:
    row = await info.context.loaders.pools.load((name.organization_id, name.id))
    return None if row is None else (pool_of(row), _is_inside(info, row.organization_id))


async def _installation_limit(info: Info, name: GlobalId) -> Found | None:
    async with info.context.backend.database.read() as session:
        row = await session.get(InstallationLimit, name.id)
    if row is None or row.archived_at is not None or name.organization_id != NOWHERE:
        return None
    return installation_limit_of(row), sees_installation(info.context.caller)


async def _nothing(_info: Info, _name: GlobalId) -> Found | None:
    return None


async def _breaker(info: Info, name: GlobalId) -> Found | None:
    kind = next(kind for kind, node in BREAKER_NODES.items() if node is name.kind)
    scope = Scope(kind, name.id)
    pair = await info.context.loaders.pairs.load((name.organization_id, (LimitKind.BREAKER, scope)))
    seen = await sees_scope(info, name.organization_id, scope)
    return breaker_of(name.organization_id, pair), seen


async def _rule(info: Info, name: GlobalId) -> Found | None:
    async with info.context.backend.database.read() as session:
        query = owned(Rule, name.organization_id).where(Rule.id == name.id)
        row = await session.scalar(query)
    if row is None:
        return None
    scope = Scope(row.scope_kind, row.scope_id)
    return rule_of(row), await sees_scope(info, row.organization_id, scope)


async def _access_token(info: Info, name: GlobalId) -> Found | None:
    async with info.context.backend.database.read() as session:
        row = await session.get(AccessToken, name.id)
    if row is None or (row.organization_id or NO_ORGANIZATION) != name.organization_id:
        return None
    return access_token_of(row), may_manage(info.context.caller, row)


async def _request(info: Info, name: GlobalId) -> Found | None:
    async with info.context.backend.database.read() as session:
        page = await page_of_requests(
            session, name.organization_id, first=1, filter=RequestFilter(request_id=name.id)
        )
    if not page.items:
        return None
    row: DecisionRow = page.items[0]
    target = Target(row.organization_id, team_id=row.team_id, member_id=row.member_id)
    return request_of(row), may(info.context.caller, Action.REQUESTS_READ, target)


async def _plan(info: Info, name: GlobalId) -> Found | None:
    row = await info.context.loaders.plans.load(name.id)
    if row is None or name.organization_id != NO_ORGANIZATION:
        return None
    return plan_of(row), await _sees_plan(info, row.id)


async def _exchange_rate(info: Info, name: GlobalId) -> Found | None:
    async with info.context.backend.database.read() as session:
        row = await session.get(ExchangeRate, name.id)
    if row is None or name.organization_id != NO_ORGANIZATION:
        return None
    return exchange_rate_of(row), info.context.caller.operator


async def _wallet(info: Info, name: GlobalId) -> Found | None:
    found = await load_wallet(info, name.organization_id)
    return None if found is None or found.row.id != name.id else (found, True)


async def _tenant_budget(info: Info, name: GlobalId) -> Found | None:
    found = await load_tenant_budget(info, name.organization_id)
    return None if found is None or found.row.id != name.id else (found, True)


async def _wallet_entry(info: Info, name: GlobalId) -> Found | None:
    async with info.context.backend.database.read() as session:
        query = owned(WalletEntry, name.organization_id).where(WalletEntry.id == name.id)
        row = await session.scalar(query)
    if row is None:
        return None
    target = Target(row.organization_id)
    return wallet_entry_of(row), may(info.context.caller, Action.BILLING_READ, target)


async def _sees_plan(info: Info, plan_id: UUID) -> bool:
    """Tell whether a caller is the operator, or sees the bills of an organization on the plan."""
    caller = info.context.caller
    if caller.operator or caller.membership is None:
        return caller.operator
    place = caller.membership.organization_id
    if not may(caller, Action.BILLING_READ, Target(place)):
        return False
    row = await info.context.loaders.organizations.load(place)
    return row is not None and row.plan_id == plan_id


def _sees(info: Info, target: Target) -> bool:
    return may(info.context.caller, Action.STRUCTURE_READ, target)


def _is_inside(info: Info, organization_id: UUID) -> bool:
    """Tell whether a caller may see anything in an organization, and so what all its people see."""
    return info.context.caller.reach(Action.STRUCTURE_READ, organization_id) is not Reach.NONE


_FINDERS: Mapping[NodeKind, Find] = {
    NodeKind.ORGANIZATION: _organization,
    NodeKind.TEAM: _team,
    NodeKind.MEMBER: _member,
    NodeKind.KEY: _key,
    NodeKind.BUDGET: _budget,
    NodeKind.RATE_LIMIT: _rate_limit,
    NodeKind.ORGANIZATION_BREAKER: _breaker,
    NodeKind.TEAM_BREAKER: _breaker,
    NodeKind.MEMBER_BREAKER: _breaker,
    NodeKind.RULE: _rule,
    NodeKind.REQUEST: _request,
    NodeKind.COST_CENTER: _cost_center,
    NodeKind.ACCESS_TOKEN: _access_token,
    NodeKind.EXCHANGE_RATE: _exchange_rate,
    NodeKind.PLAN: _plan,
    NodeKind.WALLET: _wallet,
    NodeKind.WALLET_ENTRY: _wallet_entry,
    NodeKind.TENANT_BUDGET: _tenant_budget,
    NodeKind.POOL: _pool,
    NodeKind.CONCURRENCY_LIMIT: _concurrency_limit,
    NodeKind.INSTALLATION_LIMIT: _installation_limit,
    NodeKind.LABEL: _nothing,
}
