"""A page of a hundred takes as many queries as one of ten, whatever is asked of its objects.

The schema is walked: every list of an organization, and on each object every field.
"""

from __future__ import annotations

from typing import Any

import pytest
from graphql import GraphQLObjectType, get_named_type, is_leaf_type, is_object_type
from sqlalchemy import event

from controlplane.api.nodes import NodeKind, global_id
from controlplane.api.schema import make_schema
from controlplane.clock import nanoseconds
from controlplane.keys.service import NewKey, create_key
from controlplane.limits.models import Period, ScopeKind
from controlplane.limits.service import set_breaker, set_concurrency_limit, upsert_budget
from controlplane.limits.subjects import Scope, member_in_team
from controlplane.pools.service import create_pool
from controlplane.tenancy.models import CostCenter, Member, Team, User
from tests.controlplane.api.furniture import breaker_event_row, crossing_row, request_row
from tests.controlplane.conftest import WorkAs, member_id

CORE = make_schema()._schema
ROWS = 101
# Arguments without which a list or a field cannot be asked for.
ARGUMENTS = {
    # Lists within a list: one of each is as many queries as fifty.
    **dict.fromkeys(("teams", "members", "keys", "accessTokens"), "first: 1"),
    "spend": 'range: {from: "2026-03-01T00:00:00Z", to: "2026-04-01T00:00:00Z"}',
}
LISTS = sorted(
    name
    for name, field in CORE.type_map["Organization"].fields.items()
    if get_named_type(field.type).name.endswith("Connection")
)


@pytest.fixture
async def crowd(work_as: WorkAs, org) -> None:
    """More than a page of everything."""
    async with work_as(org.admin) as work:
        for number in range(ROWS):
            user = User(
                id=work.new_id(),
                email=f"user{number}@acme.example",
                name=None,
                operator=False,
                created_at=work.now,
            )
            center = CostCenter(
                id=work.new_id(),
                organization_id=org.id,
                code=f"c{number}",
                name=f"Center {number}",
                created_at=work.now,
            )
            team = Team(
                id=work.new_id(),
                organization_id=org.id,
                slug=f"team-{number}",
                name=f"Team {number}",
                cost_center_id=center.id,
                created_at=work.now,
            )
            work.session.add_all([user, center])
            await work.session.flush()
            work.session.add(team)
            await work.session.flush()
            member = Member(
                id=work.new_id(),
                organization_id=org.id,
                user_id=user.id,
                team_id=team.id,
                role=org.member.membership.role,
                created_at=work.now,
            )
            work.session.add(member)
            await work.session.flush()
            new = NewKey(
                f"key {number}",
                member_id=member.id,
                team_id=team.id,
                tags={"a": "b"},
                allowed_models=("m",),
                requests_per_minute=5,
            )
            key = (await create_key(work, org.id, new, idempotency_key=str(number))).key
            scope = Scope(ScopeKind.KEY, key.id)
            budget = await upsert_budget(work, org.id, scope, period=Period.DAY, cap_nanos=10**9)
            both = member_in_team(member.id, team.id)
            await upsert_budget(work, org.id, both, period=Period.DAY, cap_nanos=10**9)
            await set_concurrency_limit(work, org.id, scope, requests_max=2)
            pool = await create_pool(work, org.id, name=f"Pool {number}")
            key.pool_ids = [str(pool.id)]
            in_pool = Scope(ScopeKind.POOL, pool.id)
            await upsert_budget(work, org.id, in_pool, period=Period.DAY, cap_nanos=10**9)
            own = Scope(ScopeKind.MEMBER, member.id)
            await set_breaker(work, org.id, own, minute_nanos=10**9, hour_nanos=None)
            path = {
                "organization_id": org.id,
                "key_id": key.id,
                "team_id": team.id,
                "member_id": member.id,
            }
            work.session.add(request_row("acme", work.now, **path))
            at_ns = nanoseconds(work.now)
            work.session.add(crossing_row(org.id, budget.id, work.new_id(), at_ns))
            work.session.add(breaker_event_row(org.id, team.id, work.new_id(), at_ns))


async def test_a_larger_page_takes_no_more_queries(api, org, crowd, database) -> None:
    token = await api.token(org.admin)
    statements: list[str] = []

    def count(_connection, _cursor, statement, *_rest) -> None:
        statements.append(statement)

    event.listen(database._readers.sync_engine, "before_cursor_execute", count)
    for name in LISTS:
        counts, sizes = [], []
        for first in (10, 100):
            statements.clear()
            page = (await api.ask(token, document(name), first=first))["organization"][name]
            counts.append(len(statements))
            sizes.append(len(page["nodes"]))
            # One list after the other is more than a caller may ask for at once.
            api.plane.installation.clock.advance_ns(60 * 10**9)
        assert sizes == [10, 100], name
        assert counts[0] == counts[1], name


def document(name: str) -> str:
    kind = get_named_type(CORE.type_map["Organization"].fields[name].type)
    node = get_named_type(kind.fields["nodes"].type)
    fields = " ".join(_asked(each, field.type) for each, field in node.fields.items())
    return f"""query($first: Int!) {{ organization(slug: "acme") {{
      {name}(first: $first) {{ nodes {{ {fields} }} pageInfo {{ endCursor }} }} }} }}"""


def _asked(name: str, kind: Any) -> str:
    inner = get_named_type(kind)
    arguments = f"({ARGUMENTS[name]})" if name in ARGUMENTS else ""
    if is_leaf_type(inner):
        return name + arguments
    return f"{name}{arguments} {{ {_leaves(inner)} }}"


def _leaves(kind: GraphQLObjectType) -> str:
    if not is_object_type(kind):
        return "__typename"
    if kind.name.endswith("Connection"):
        return f"nodes {{ {_leaves(get_named_type(kind.fields['nodes'].type))} }}"
    names = [
        name for name, field in kind.fields.items() if is_leaf_type(get_named_type(field.type))
    ]
    return " ".join(names) or "__typename"


def test_there_are_lists_to_look_at(org) -> None:
    assert {"teams", "members", "keys", "budgets", "requests"} <= set(LISTS)
    assert global_id(NodeKind.MEMBER, org.id, member_id(org.member))
