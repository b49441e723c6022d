"""What `node(id:)` finds: any object by its global id, if the caller may see it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

from sqlalchemy.ext.asyncio import AsyncSession

from controlplane.api.nodes import BREAKER_NODES, GlobalId, Node, NodeKind
from controlplane.api.organization import organization_of
from controlplane.api.request import Info
from controlplane.authz import Action, Target, may
from controlplane.errors import NotFound
from controlplane.keys.graphql import key_of
from controlplane.keys.queries import key_by_id, target_of
from controlplane.ledger.models import DecisionRow
from controlplane.limits.graphql import breaker_of, budget_of, rate_limit_of
from controlplane.limits.models import Limit, LimitKind, ScopeKind
from controlplane.limits.queries import live_limit, pair_of
from controlplane.limits.subjects import Scope, target_of_scope
from controlplane.policies.graphql import model_rule_of
from controlplane.policies.models import ModelRule
from controlplane.scope import get_owned
from controlplane.tenancy.graphql import member_of, team_of
from controlplane.tenancy.queries import member_by_id, organization_by_id, team_by_id
from controlplane.usage.filters import RequestFilter
from controlplane.usage.graphql import request_of
from controlplane.usage.queries import page_of_requests

# An object, to whom it belongs, and which action it takes to see it.
Found = tuple[Node, Target]
Find = Callable[[Info, AsyncSession, GlobalId], Awaitable[Found | None]]


async def find_node(info: Info, name: GlobalId) -> Node | None:
    """Find an object; None when there is none or the caller may not see it."""
    is_request = name.kind is NodeKind.REQUEST
    action = Action.REQUESTS_READ if is_request else Action.STRUCTURE_READ
    find = _FINDERS.get(name.kind)
    if find is None:
        return None
    async with info.context.backend.database.read() as session:
        try:
            found = await find(info, session, name)
        except NotFound:
            return None
    if found is None:
        return None
    node, target = found
    caller = info.context.caller
    is_own_place = name.kind is NodeKind.ORGANIZATION and caller.reach(action, name.id) > 0
    return node if is_own_place or may(caller, action, target) else None


async def _organization(_info: Info, session: AsyncSession, name: GlobalId) -> Found:
    row = await organization_by_id(session, name.id)
    return organization_of(row), Target(row.id)


async def _team(_info: Info, session: AsyncSession, name: GlobalId) -> Found:
    row = await team_by_id(session, name.organization_id, name.id)
    return team_of(row), Target(row.organization_id, team_id=row.id)


async def _member(_info: Info, session: AsyncSession, name: GlobalId) -> Found:
    row = await member_by_id(session, name.organization_id, name.id)
    return member_of(row), Target(row.organization_id, team_id=row.team_id, member_id=row.id)


async def _key(info: Info, session: AsyncSession, name: GlobalId) -> Found:
    row = await key_by_id(session, name.organization_id, name.id)
    return key_of(row, info.context.backend.installation.now()), target_of(row)


async def _budget(_info: Info, session: AsyncSession, name: GlobalId) -> Found:
    row = await live_limit(session, name.organization_id, name.id, LimitKind.BUDGET)
    return budget_of(row), await _target(session, row)


async def _rate_limit(_info: Info, session: AsyncSession, name: GlobalId) -> Found | None:
    scope = Scope(ScopeKind.KEY, name.id)
    target = await target_of_scope(session, name.organization_id, scope)
    pair = await pair_of(session, name.organization_id, scope, LimitKind.RATE)
    return (rate_limit_of(name.organization_id, pair), target) if pair.version else None


async def _breaker(_info: Info, session: AsyncSession, name: GlobalId) -> Found:
    kind = next(kind for kind, node in BREAKER_NODES.items() if node is name.kind)
    scope = Scope(kind, name.id)
    target = await target_of_scope(session, name.organization_id, scope)
    pair = await pair_of(session, name.organization_id, scope, LimitKind.BREAKER)
    return breaker_of(name.organization_id, pair), target


async def _model_rule(_info: Info, session: AsyncSession, name: GlobalId) -> Found:
    row = await get_owned(session, ModelRule, name.organization_id, name.id, "model rule")
    return model_rule_of(row), await _target(session, row)


async def _request(_info: Info, session: AsyncSession, name: GlobalId) -> Found | None:
    page = await page_of_requests(
        session, name.organization_id, first=1, filter=RequestFilter(request_id=name.id)
    )
    if not page.items:
        return None
    row: DecisionRow = page.items[0]
    target = Target(row.organization_id, team_id=row.team_id, member_id=row.member_id)
    return request_of(row), target


async def _target(session: AsyncSession, row: Limit | ModelRule) -> Target:
    scope = Scope(row.scope_kind, row.scope_id)
    return await target_of_scope(session, row.organization_id, scope)


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
    NodeKind.MODEL_RULE: _model_rule,
    NodeKind.REQUEST: _request,
}
