"""Each mutation of structure and keys: who may, what goes on record, what the proxy is told."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import select

from controlplane.access.models import AccessToken
from controlplane.api.nodes import NodeKind, global_id
from controlplane.audit.models import AdminEvent
from controlplane.authz import SYSTEM
from controlplane.breakers.service import reset_breaker
from controlplane.context import Work
from controlplane.cost_centers.service import create_cost_center
from controlplane.events import OrganizationChanged
from controlplane.keys.models import VirtualKey
from controlplane.keys.service import NewKey, create_key
from controlplane.limits.models import Limit, Period, ScopeKind
from controlplane.limits.service import set_concurrency_limit, upsert_budget
from controlplane.limits.subjects import Scope
from controlplane.plans.service import create_plan
from controlplane.policies.models import Rule
from controlplane.policies.service import set_rule
from controlplane.pools.models import Pool
from controlplane.pools.service import create_pool
from controlplane.scope import owned
from controlplane.tenancy.models import CostCenter, Member, Organization, Team
from controlplane.wallets.models import EntryKind, WalletEntry
from controlplane.wallets.service import open_wallet, top_up
from tests.controlplane.conftest import member_id
from tests.controlplane.everything import everything

CALLERS = ("admin", "billing_viewer", "team_admin", "member", "other_member", "operator", "foreign")


@dataclass
class World:
    """Two organizations; `keys` and `tokens` of the member in the team, one for each caller."""

    api: Any
    org: Any
    foreign: Any
    database: Any
    published: list[OrganizationChanged]
    tokens: dict[str, str] = field(default_factory=dict)
    keys: dict[str, UUID] = field(default_factory=dict)
    access: dict[str, UUID] = field(default_factory=dict)
    cost_center: UUID = UUID(int=0)
    plan: UUID = UUID(int=0)
    paid: UUID = UUID(int=0)
    pool: UUID = UUID(int=0)
    budgets: list[UUID] = field(default_factory=list)
    concurrency: dict[str, UUID] = field(default_factory=dict)
    foreign_ids: dict[NodeKind, str] = field(default_factory=dict)

    def id(self, kind: NodeKind, row_id: UUID) -> str:
        return global_id(kind, self.org.id, row_id)

    async def version(self, model: Any, row_id: UUID) -> int:
        return (await self.row(model, row_id)).version

    async def row(self, model: Any, row_id: UUID) -> Any:
        async with self.database.read() as session:
            return await session.get(model, row_id)

    async def events(self) -> dict[UUID, AdminEvent]:
        async with self.database.read() as session:
            return {each.id: each for each in await session.scalars(select(AdminEvent))}


Input = Callable[[World, str], Awaitable[dict[str, Any]]]


@dataclass(frozen=True)
class Case:
    """A mutation; `changed` are the values that differ before and after, None for a new object."""

    name: str
    make: Input
    allowed: frozenset[str]
    action: str
    changed: frozenset[str] | None
    announced: str
    payload: str


async def team_create(world: World, caller: str) -> dict[str, Any]:
    return {
        "organizationId": world.id(NodeKind.ORGANIZATION, world.org.id),
        "name": f"Green {caller}",
        "idempotencyKey": "1",
    }


async def team_update(world: World, caller: str) -> dict[str, Any]:
    version = await world.version(Team, world.org.team)
    return {
        "teamId": world.id(NodeKind.TEAM, world.org.team),
        "expectedVersion": version,
        "name": f"Red {version}",
    }


async def member_update(world: World, caller: str) -> dict[str, Any]:
    row = await world.row(Member, member_id(world.org.member))
    return {
        "memberId": world.id(NodeKind.MEMBER, row.id),
        "expectedVersion": row.version,
        "role": "TEAM_ADMIN" if row.role == "member" else "MEMBER",
    }


async def cost_center_create(world: World, caller: str) -> dict[str, Any]:
    place = world.id(NodeKind.ORGANIZATION, world.org.id)
    return {"organizationId": place, "code": "CC-2", "name": "New", "idempotencyKey": "1"}


async def cost_center_update(world: World, caller: str) -> dict[str, Any]:
    version = await world.version(CostCenter, world.cost_center)
    name = world.id(NodeKind.COST_CENTER, world.cost_center)
    return {"costCenterId": name, "expectedVersion": version, "name": "Renamed"}


async def cost_center_archive(world: World, caller: str) -> dict[str, Any]:
    version = await world.version(CostCenter, world.cost_center)
    name = world.id(NodeKind.COST_CENTER, world.cost_center)
    return {"costCenterId": name, "expectedVersion": version, "reason": "merged"}


async def key_update(world: World, caller: str) -> dict[str, Any]:
    return {"keyId": world.id(NodeKind.KEY, world.keys[caller]), "expectedVersion": 1, "name": "x"}


async def key_rotate(world: World, caller: str) -> dict[str, Any]:
    return {
        "keyId": world.id(NodeKind.KEY, world.keys[caller]),
        "idempotencyKey": "1",
        "graceSeconds": 60,
        "expectedVersion": 1,
    }


async def key_disable(world: World, caller: str) -> dict[str, Any]:
    name = world.id(NodeKind.KEY, world.keys[caller])
    return {"keyId": name, "enabled": False, "reason": "odd"}


async def key_revoke(world: World, caller: str) -> dict[str, Any]:
    return {"keyId": world.id(NodeKind.KEY, world.keys[caller]), "reason": "leaked"}


async def breaker_reset(world: World, caller: str) -> dict[str, Any]:
    name = world.id(NodeKind.TEAM_BREAKER, world.org.team)
    # Each reset is later than the one before, and tells so.
    world.api.plane.installation.clock.advance_ns(1_000_000)
    return {"breakerId": name, "expectedVersion": 0, "reason": "known"}


async def rule_set(world: World, caller: str) -> dict[str, Any]:
    async with world.database.read() as session:
        row = await session.scalar(owned(Rule, world.org.id))
    return {
        "scope": {"teamId": world.id(NodeKind.TEAM, world.org.team)},
        "holdWaitS": row.hold_wait_s - 1,
        "expectedVersion": row.version,
    }


async def token_revoke(world: World, caller: str) -> dict[str, Any]:
    name = world.id(NodeKind.ACCESS_TOKEN, world.access[caller])
    return {"accessTokenId": name, "reason": "lost"}


async def organization_set_plan(world: World, caller: str) -> dict[str, Any]:
    return {
        "organizationId": world.id(NodeKind.ORGANIZATION, world.org.id),
        "planId": global_id(NodeKind.PLAN, UUID(int=0), world.plan),
        "expectedVersion": await world.version(Organization, world.org.id),
    }


async def wallet_update(world: World, caller: str) -> dict[str, Any]:
    return {
        "organizationId": world.id(NodeKind.ORGANIZATION, world.org.id),
        "lowBalanceThreshold": "2.50",
        "expectedVersion": 1,
    }


async def wallet_top_up(world: World, caller: str) -> dict[str, Any]:
    place = world.id(NodeKind.ORGANIZATION, world.org.id)
    return {"organizationId": place, "amount": "1", "reference": "R-1", "idempotencyKey": "t"}


async def wallet_adjust(world: World, caller: str) -> dict[str, Any]:
    place = world.id(NodeKind.ORGANIZATION, world.org.id)
    return {"organizationId": place, "amount": "-0.5", "note": "typo", "idempotencyKey": "a"}


async def wallet_refund(world: World, caller: str) -> dict[str, Any]:
    request = world.id(NodeKind.REQUEST, world.paid)
    return {"requestId": request, "amount": "0.01", "idempotencyKey": "r"}


async def pool_create(world: World, caller: str) -> dict[str, Any]:
    place = world.id(NodeKind.ORGANIZATION, world.org.id)
    return {"organizationId": place, "name": "New", "idempotencyKey": "1"}


async def pool_update(world: World, caller: str) -> dict[str, Any]:
    version = await world.version(Pool, world.pool)
    name = world.id(NodeKind.POOL, world.pool)
    return {"poolId": name, "expectedVersion": version, "name": "Renamed"}


async def pool_archive(world: World, caller: str) -> dict[str, Any]:
    version = await world.version(Pool, world.pool)
    return {"poolId": world.id(NodeKind.POOL, world.pool), "expectedVersion": version}


async def team_allot(world: World, caller: str) -> dict[str, Any]:
    row = await world.row(Team, world.org.team)
    return {
        "teamId": world.id(NodeKind.TEAM, world.org.team),
        "expectedVersion": row.version,
        "allot": "STRICT",
    }


async def budget_upsert(world: World, caller: str) -> dict[str, Any]:
    row = await world.row(Limit, world.budgets[0])
    return {
        "budgetId": world.id(NodeKind.BUDGET, row.id),
        "expectedVersion": row.version,
        "limit": f"1.{row.version}",
    }


async def budget_move(world: World, caller: str) -> dict[str, Any]:
    rows = [await world.row(Limit, each) for each in world.budgets]
    giver, taker = (world.id(NodeKind.BUDGET, each.id) for each in rows)
    return {
        "fromBudgetId": giver,
        "toBudgetId": taker,
        "amount": "0.25",
        "expectedVersions": [each.version for each in rows],
        "idempotencyKey": caller,
    }


async def concurrency_set(world: World, caller: str) -> dict[str, Any]:
    scope = {"keyId": world.id(NodeKind.KEY, world.keys[caller])}
    return {"scope": scope, "requests": 2}


async def concurrency_archive(world: World, caller: str) -> dict[str, Any]:
    name = world.id(NodeKind.CONCURRENCY_LIMIT, world.concurrency[caller])
    return {"concurrencyLimitId": name, "expectedVersion": 1}


async def rates_set(world: World, caller: str) -> dict[str, Any]:
    scope = {"keyId": world.id(NodeKind.KEY, world.keys[caller])}
    return {"scope": scope, "requestsPerMinute": "7"}


LEADS = frozenset({"admin", "team_admin"})
ADMINS = frozenset({"admin", "operator"})
OPERATOR = frozenset({"operator"})
KEY_OWNERS = frozenset({"admin", "team_admin", "member"})
CASES = [
    Case("poolCreate", pool_create, frozenset({"admin"}), "pool.create", None, "nothing", "pool"),
    Case(
        "poolUpdate",
        pool_update,
        frozenset({"admin"}),
        "pool.update",
        frozenset({"name", "version"}),
        "nothing",
        "pool",
    ),
    Case(
        "poolArchive",
        pool_archive,
        frozenset({"admin"}),
        "pool.archive",
        frozenset({"archived_at", "version"}),
        "nothing",
        "pool",
    ),
    Case(
        "budgetUpsert",
        budget_upsert,
        LEADS,
        "budget.change",
        frozenset({"cap", "version"}),
        "policy",
        "budget",
    ),
    Case(
        "budgetMove",
        budget_move,
        LEADS,
        "budget.move",
        frozenset({"from", "to"}),
        "policy",
        "fromBudget",
    ),
    Case(
        "concurrencyLimitSet",
        concurrency_set,
        LEADS,
        "concurrency.create",
        None,
        "policy",
        "concurrencyLimit",
    ),
    Case(
        "concurrencyLimitArchive",
        concurrency_archive,
        LEADS,
        "concurrency.archive",
        frozenset({"archived_at", "version"}),
        "policy",
        "concurrencyLimit",
    ),
    Case("rateLimitSet", rates_set, LEADS, "rate.create", None, "policy", "rateLimit"),
    Case("teamCreate", team_create, ADMINS, "team.create", None, "policy", "team"),
    Case(
        "teamUpdate",
        team_update,
        ADMINS,
        "team.update",
        frozenset({"name", "version"}),
        "policy",
        "team",
    ),
    Case(
        "memberUpdate",
        member_update,
        ADMINS | {"team_admin"},
        "member.update",
        frozenset({"role", "version"}),
        "policy",
        "member",
    ),
    Case(
        "costCenterCreate",
        cost_center_create,
        frozenset({"admin"}),
        "cost_center.create",
        None,
        "nothing",
        "costCenter",
    ),
    Case(
        "costCenterUpdate",
        cost_center_update,
        frozenset({"admin"}),
        "cost_center.update",
        frozenset({"name", "version"}),
        "nothing",
        "costCenter",
    ),
    Case(
        "costCenterArchive",
        cost_center_archive,
        frozenset({"admin"}),
        "cost_center.archive",
        frozenset({"archived_at", "version", "reason"}),
        "nothing",
        "costCenter",
    ),
    Case(
        "virtualKeyUpdate",
        key_update,
        KEY_OWNERS,
        "key.update",
        frozenset({"name", "version"}),
        "key",
        "virtualKey",
    ),
    Case(
        "virtualKeyRotate",
        key_rotate,
        KEY_OWNERS,
        "key.rotate",
        frozenset({"prefix", "last_four", "version", "grace_seconds"}),
        "key",
        "virtualKey",
    ),
    Case(
        "virtualKeySetEnabled",
        key_disable,
        KEY_OWNERS,
        "key.disable",
        frozenset({"state", "version", "reason"}),
        "key",
        "virtualKey",
    ),
    Case(
        "virtualKeyRevoke",
        key_revoke,
        KEY_OWNERS,
        "key.revoke",
        frozenset({"state", "version", "reason"}),
        "key",
        "virtualKey",
    ),
    Case(
        "ruleSet",
        rule_set,
        frozenset({"admin", "team_admin"}),
        "rule.set",
        frozenset({"hold_wait_s", "version"}),
        "policy",
        "rule",
    ),
    Case(
        "breakerReset",
        breaker_reset,
        frozenset({"admin"}),
        "breaker.reset",
        frozenset({"minute_until_ns", "hour_until_ns", "reset_at", "version", "reason"}),
        "policy",
        "breaker",
    ),
    Case(
        "accessTokenRevoke",
        token_revoke,
        frozenset({"admin", "operator", "member"}),
        "access_token.revoke",
        frozenset({"revoked_at", "reason"}),
        "nothing",
        "accessToken",
    ),
    Case(
        "organizationSetPlan",
        organization_set_plan,
        OPERATOR,
        "organization.set_plan",
        frozenset({"plan_id", "version"}),
        "policy",
        "organization",
    ),
    Case(
        "walletUpdate",
        wallet_update,
        OPERATOR,
        "wallet.update",
        frozenset({"low_balance_threshold_nanos", "version"}),
        "nothing",
        "wallet",
    ),
    Case("walletTopUp", wallet_top_up, OPERATOR, "wallet.top_up", None, "policy", "walletEntry"),
    Case(
        "walletAdjust",
        wallet_adjust,
        OPERATOR,
        "wallet.adjustment",
        None,
        "policy",
        "walletEntry",
    ),
    Case("walletRefund", wallet_refund, OPERATOR, "wallet.refund", None, "policy", "walletEntry"),
    Case(
        "teamUpdate",
        team_allot,
        frozenset({"admin"}),
        "team.update",
        frozenset({"allot", "version"}),
        "policy",
        "team",
    ),
]
BY_NAME = pytest.mark.parametrize(
    "case", CASES, ids=lambda case: f"{case.name}-{case.make.__name__}"
)


@pytest.fixture
async def world(api, org, foreign, database, published, work_as) -> World:
    made = World(api, org, foreign, database, published)
    for name, caller in org.callers().items():
        made.tokens[name] = await api.token(caller)
    made.tokens["operator"] = await api.operator_token()
    made.tokens["foreign"] = await api.token(foreign.admin)
    async with work_as(SYSTEM) as work:
        row = await create_cost_center(work, org.id, code="CC-1", name="Research")
        made.cost_center = row.id
        for caller in CALLERS:
            new = NewKey(caller, team_id=org.team, member_id=member_id(org.member))
            key = await create_key(work, org.id, new, idempotency_key=caller)
            made.keys[caller] = key.key.id
            scope, where = Scope(ScopeKind.KEY, key.key.id), {"models": ["m"]}
            limit = await set_concurrency_limit(work, org.id, scope, requests_max=1, where=where)
            made.concurrency[caller] = limit.id
        made.pool = (await create_pool(work, org.id, name="Research")).id
        for kind, about in (
            (ScopeKind.MEMBER, member_id(org.member)),
            (ScopeKind.KEY, made.keys["admin"]),
        ):
            scope = Scope(kind, about)
            budget = await upsert_budget(
                work, org.id, scope, period=Period.MONTH, cap_nanos=2 * 10**9
            )
            made.budgets.append(budget.id)
        for kind, row_id in (
            (NodeKind.ORGANIZATION, foreign.id),
            (NodeKind.TEAM, foreign.team),
            (NodeKind.MEMBER, member_id(foreign.member)),
        ):
            made.foreign_ids[kind] = global_id(kind, foreign.id, row_id)
        new = NewKey("theirs", team_id=foreign.team)
        key = await create_key(work, foreign.id, new, idempotency_key="1")
        made.foreign_ids[NodeKind.TEAM_BREAKER] = global_id(
            NodeKind.TEAM_BREAKER, foreign.id, foreign.team
        )
        # Something to change: what is set for the first time has nothing before it.
        await set_rule(work, org.id, Scope(ScopeKind.TEAM, org.team), {"hold_wait_s": 20})
        breaker = Scope(ScopeKind.TEAM, org.team)
        await reset_breaker(work, org.id, breaker, {}, expected_version=0, reason="known")
        made.foreign_ids[NodeKind.KEY] = global_id(NodeKind.KEY, foreign.id, key.key.id)
        made.plan = (await create_plan(work, {"name": "Starter"})).id
        made.paid = await paid_from_wallet(work, org.id)
        theirs_id = await paid_from_wallet(work, foreign.id)
        made.foreign_ids[NodeKind.REQUEST] = global_id(NodeKind.REQUEST, foreign.id, theirs_id)
        theirs = await create_cost_center(work, foreign.id, code="CC-9", name="Theirs")
        made.foreign_ids[NodeKind.COST_CENTER] = global_id(
            NodeKind.COST_CENTER, foreign.id, theirs.id
        )
    query = select(AccessToken.id).where(AccessToken.member_id == member_id(org.member))
    async with database.read() as session:
        # Ids of one millisecond have no order: the token that asks must not be among the others.
        [in_use] = await session.scalars(query)
    for _ in CALLERS:
        await api.token(org.member)
    async with database.read() as session:
        others = list(await session.scalars(query.where(AccessToken.id != in_use)))
        made.access = dict(zip(CALLERS, others, strict=True))
        stranger = await session.scalar(
            select(AccessToken.id).where(AccessToken.member_id == member_id(foreign.admin))
        )
    made.foreign_ids[NodeKind.ACCESS_TOKEN] = global_id(NodeKind.ACCESS_TOKEN, foreign.id, stranger)
    published.clear()
    return made


async def paid_from_wallet(work: Work, organization_id: UUID) -> UUID:
    """Open a wallet with 1.00 of which a request has been charged 0.25; gives the request's id."""
    await open_wallet(work, organization_id, idempotency_key="w")
    credit = {"amount_nanos": 10**9, "reference": "R"}
    entry = await top_up(work, organization_id, idempotency_key="c", **credit)
    paid = WalletEntry(
        id=work.new_id(),
        organization_id=organization_id,
        seq=2,
        kind=EntryKind.USAGE,
        amount_nanos=-250_000_000,
        balance_after_nanos=750_000_000,
        at_ns=entry.at_ns,
    )
    work.session.add(paid)
    await work.session.flush()
    return paid.id


def document(case: Case) -> str:
    kind = case.name[0].upper() + case.name[1:]
    return (
        f"mutation($input: {kind}Input!) {{ {case.name}(input: $input) {{ "
        f"{case.payload} {{ id }} errors {{ code message field }} }} }}"
    )


async def post(world: World, caller: str, case: Case, wanted: dict[str, Any]) -> tuple[Any, Any]:
    """Post a mutation; gives its payload, or the code of the fault there was instead."""
    body = (await world.api.post(world.tokens[caller], document(case), input=wanted)).json()
    if "errors" in body:
        return None, body["errors"][0]["extensions"]["code"]
    payload = body["data"][case.name]
    codes = [each["code"] for each in payload["errors"]]
    assert bool(codes) == (payload[case.payload] is None)
    return payload, codes[0] if codes else None


@BY_NAME
async def test_who_may_not_changes_nothing(world, database, case: Case) -> None:
    before = await everything(database)
    for caller in sorted(set(CALLERS) - case.allowed):
        _, code = await post(world, caller, case, await case.make(world, caller))
        is_hidden = caller in {"foreign", "other_member"}
        assert code in ({"NOT_FOUND"} if is_hidden else {"NOT_FOUND", "FORBIDDEN"}), caller
    assert await everything(database) == before
    assert world.published == []


@BY_NAME
async def test_who_may_is_on_record_with_before_and_after(world, org, case: Case) -> None:
    for caller in sorted(case.allowed):
        known = await world.events()
        world.published.clear()
        _, code = await post(world, caller, case, await case.make(world, caller))
        assert code is None, caller
        [event] = [row for name, row in (await world.events()).items() if name not in known]
        assert (event.action, event.organization_id) == (case.action, org.id)
        assert event.actor_kind == ("operator" if caller == "operator" else "member")
        if case.changed is None:
            assert event.before is None
            # What is only ever added has no versions.
            assert event.after.get("version", 1) == 1
        else:
            differs = {
                name for name, value in event.after.items() if event.before.get(name) != value
            }
            assert differs == case.changed
        told = {
            "nothing": [],
            "policy": [OrganizationChanged(org.id, policy=True)],
            "key": [OrganizationChanged(org.id, (world.keys[caller],), policy=False)],
        }
        assert world.published == told[case.announced]


@BY_NAME
async def test_ids_of_another_organization_are_not_found(world, database, case: Case) -> None:
    wanted = await case.make(world, "admin")
    before = await everything(database)
    tried = 0
    if "scope" in wanted:
        await scopes_of_another_are_not_found(world, database, case, wanted)
        return
    for name in [each for each in wanted if each.endswith("Id")]:
        for text in (*world.foreign_ids.values(), "nonsense", ""):
            _, code = await post(world, "admin", case, {**wanted, name: text})
            assert code == "NOT_FOUND", (name, text)
            tried += 1
    for name in wanted.get("scope", {}):
        for text in (*world.foreign_ids.values(), "nonsense", ""):
            _, code = await post(world, "admin", case, {**wanted, "scope": {name: text}})
            assert code == "NOT_FOUND", (name, text)
            tried += 1
    assert tried >= 8
    assert await everything(database) == before
    assert world.published == []


async def scopes_of_another_are_not_found(world, database, case, wanted) -> None:
    before = await everything(database)
    for text in (*world.foreign_ids.values(), "nonsense", ""):
        for name in ("keyId", "teamId", "memberId", "poolId", "organizationId"):
            foreign = {**wanted, "scope": {name: text}}
            _, code = await post(world, "admin", case, foreign)
            assert code == "NOT_FOUND", (name, text)
    assert await everything(database) == before
    assert world.published == []


REFERENCES = [
    ("teamCreate", {"costCenterId": NodeKind.COST_CENTER}),
    ("teamUpdate", {"costCenterId": NodeKind.COST_CENTER}),
    ("memberUpdate", {"costCenterId": NodeKind.COST_CENTER, "teamId": NodeKind.TEAM}),
    (
        "virtualKeyUpdate",
        {
            "costCenterId": NodeKind.COST_CENTER,
            "teamId": NodeKind.TEAM,
            "ownerId": NodeKind.MEMBER,
        },
    ),
]


@pytest.mark.parametrize(("name", "references"), REFERENCES, ids=[each[0] for each in REFERENCES])
async def test_nothing_refers_to_another_organization(world, database, name, references) -> None:
    case = next(each for each in CASES if each.name == name)
    wanted = await case.make(world, "admin")
    before = await everything(database)
    for reference, kind in references.items():
        # An id of this organization with a row of the other is no better.
        forged = global_id(kind, world.org.id, UUID(int=7))
        for text in (world.foreign_ids[kind], forged, "nonsense"):
            _, code = await post(world, "admin", case, {**wanted, reference: text})
            assert code == "NOT_FOUND", reference
    assert await everything(database) == before
    assert world.published == []


VERSIONED = [
    case
    for case in CASES
    if case.make is not team_allot
    and case.name
    in {
        "poolUpdate",
        "poolArchive",
        "budgetUpsert",
        "teamUpdate",
        "memberUpdate",
        "costCenterUpdate",
        "costCenterArchive",
        "virtualKeyUpdate",
        "virtualKeyRotate",
        "virtualKeySetEnabled",
        "virtualKeyRevoke",
    }
]


@pytest.mark.parametrize("case", VERSIONED, ids=lambda case: case.name)
async def test_a_stale_edit_is_refused_with_the_object_as_it_is(world, database, case) -> None:
    wanted = {**await case.make(world, "admin"), "expectedVersion": 7}
    before = await everything(database)
    kind = case.name[0].upper() + case.name[1:]
    query = (
        f"mutation($input: {kind}Input!) {{ {case.name}(input: $input) {{ errors {{ "
        "code field ... on ConflictError { current { id __typename "
        "... on Team { version } ... on Member { version } ... on CostCenter { version } "
        "... on VirtualKey { version } ... on Pool { version } ... on Budget { version } } } } } }"
    )
    answer = await world.api.ask(world.tokens["admin"], query, input=wanted)
    [error] = answer[case.name]["errors"]
    [name] = [wanted[each] for each in wanted if each in CURRENT]
    assert error == {
        "code": "STALE_VERSION",
        "field": ["expectedVersion"],
        "current": {
            "id": name,
            "__typename": case.payload[0].upper() + case.payload[1:],
            "version": 1,
        },
    }
    assert await everything(database) == before
    assert world.published == []


CURRENT = {"teamId", "memberId", "costCenterId", "keyId", "poolId", "budgetId"}


@pytest.mark.parametrize("name", ["teamUpdate", "costCenterUpdate", "virtualKeyUpdate"])
async def test_an_edit_that_changes_nothing_is_no_event(world, database, name) -> None:
    case = next(each for each in CASES if each.name == name)
    wanted = await case.make(world, "admin")
    del wanted["name"]
    before = await everything(database)
    payload, code = await post(world, "admin", case, wanted)
    assert code is None
    assert payload[case.payload]["id"] in wanted.values()
    assert await everything(database) == before
    assert world.published == []


@pytest.mark.parametrize(
    ("name", "field"),
    [
        ("teamUpdate", "name"),
        ("memberUpdate", "role"),
        ("costCenterUpdate", "name"),
        ("costCenterUpdate", "code"),
        ("virtualKeyUpdate", "name"),
        ("teamUpdate", "allot"),
    ],
)
async def test_what_cannot_be_taken_away_is_not_null(world, database, name, field) -> None:
    case = next(each for each in CASES if each.name == name)
    wanted = {**await case.make(world, "admin"), field: None}
    before = await everything(database)
    _, code = await post(world, "admin", case, wanted)
    assert code == "INVALID"
    assert await everything(database) == before
    assert world.published == []


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("teamCreate", {"name": "Other"}),
        ("costCenterCreate", {"name": "Other"}),
        ("poolCreate", {"name": "Other"}),
        ("budgetMove", {"amount": "0.5"}),
        ("virtualKeyRotate", {"graceSeconds": 61}),
    ],
)
async def test_the_same_call_again_has_no_second_effect(world, database, name, other) -> None:
    case = next(each for each in CASES if each.name == name)
    wanted = await case.make(world, "admin")
    first, _ = await post(world, "admin", case, wanted)
    before = await everything(database)
    world.published.clear()
    again, code = await post(world, "admin", case, wanted)
    assert (code, again[case.payload]) == (None, first[case.payload])
    _, code = await post(world, "admin", case, {**wanted, **other})
    assert code == "IDEMPOTENCY_MISMATCH"
    assert await everything(database) == before
    assert world.published == []


async def test_ended_keys_and_tokens_stay_ended_without_a_second_event(world, database) -> None:
    for name in ("virtualKeyRevoke", "accessTokenRevoke", "virtualKeySetEnabled"):
        case = next(each for each in CASES if each.name == name)
        wanted = await case.make(world, "member" if name == "virtualKeyRevoke" else "admin")
        await post(world, "admin", case, wanted)
        before = await everything(database)
        _, code = await post(world, "admin", case, wanted)
        assert code is None
        assert await everything(database) == before
    assert (await world.row(VirtualKey, world.keys["admin"])).state == "disabled"
