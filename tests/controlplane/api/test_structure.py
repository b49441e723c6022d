"""Structure as people read it: teams, members, what belongs to them, and whom one may see."""

from __future__ import annotations

import pytest

from controlplane.api.nodes import NodeKind, global_id
from controlplane.authz import SYSTEM
from controlplane.cost_centers.service import archive_cost_center, create_cost_center
from controlplane.keys.service import NewKey, create_key
from controlplane.limits.models import Period, ScopeKind
from controlplane.limits.service import set_breaker, upsert_budget
from controlplane.limits.subjects import Scope
from tests.controlplane.conftest import member_id


@pytest.fixture
async def key(work_as, org):
    async with work_as(SYSTEM) as work:
        new = NewKey("ci", team_id=org.team, member_id=member_id(org.member))
        made = (await create_key(work, org.id, new, idempotency_key="1")).key
        for scope, cap in (
            (Scope(ScopeKind.TEAM, org.team), 3),
            (Scope(ScopeKind.MEMBER, member_id(org.member)), 2),
            (Scope(ScopeKind.KEY, made.id), 1),
        ):
            await upsert_budget(work, org.id, scope, period=Period.DAY, cap_nanos=cap * 10**9)
    return made


TEAM = """query { organization(slug: "acme") { team(slug: "red") {
  slug members { nodes { user { email } } } keys { nodes { name } }
  budgets { limit scope { label node { ... on Team { slug } } } }
  breaker { state } rule { models } } } }"""


async def test_a_team_shows_what_belongs_to_it(api, org, key) -> None:
    found = (await api.ask(await api.token(org.team_admin), TEAM))["organization"]["team"]
    emails = {each["user"]["email"] for each in found.pop("members")["nodes"]}
    assert emails == {"lead@acme.example", "member@acme.example"}
    assert found == {
        "slug": "red",
        "keys": {"nodes": [{"name": "ci"}]},
        "budgets": [{"limit": "3.00", "scope": {"label": "Red", "node": {"slug": "red"}}}],
        "breaker": {"state": "CLOSED"},
        "rule": None,
    }
    assert (await api.ask(await api.token(org.other_member), TEAM))["organization"] == {
        "team": None
    }


async def test_pages_of_several_teams_are_each_teams_own(api, org, key, work_as, clock) -> None:
    async with work_as(SYSTEM) as work:
        for number, team in enumerate([org.team, org.other_team, org.team, org.other_team]):
            clock.advance_ns(10**9)
            new = NewKey(f"k{number}", team_id=team)
            await create_key(work, org.id, new, idempotency_key=f"k{number}")
    text = """query($after: String) { organization(slug: "acme") { teams { nodes { slug
      keys(first: 2, after: $after) { nodes { name } pageInfo { hasNextPage endCursor } } } } } }"""
    token = await api.token(org.admin)
    page = (await api.ask(token, text))["organization"]["teams"]["nodes"]
    found = {each["slug"]: each["keys"] for each in page}
    assert [each["name"] for each in found["red"]["nodes"]] == ["k2", "k0"]
    assert [each["name"] for each in found["blue"]["nodes"]] == ["k3", "k1"]
    assert found["red"]["pageInfo"]["hasNextPage"] is True
    assert found["blue"]["pageInfo"]["hasNextPage"] is False
    after = found["red"]["pageInfo"]["endCursor"]
    page = (await api.ask(token, text, after=after))["organization"]["teams"]["nodes"]
    rest = {each["slug"]: [key["name"] for key in each["keys"]["nodes"]] for each in page}
    assert rest == {"red": ["ci"], "blue": []}


MEMBERS = """query($role: Role, $text: String) { organization(slug: "acme") {
  members(role: $role, query: $text) { nodes { user { email } organization { slug }
    keys { nodes { name } } budgets { limit scope { label } } } } } }"""


async def test_members_are_found_by_role_and_text(api, org, key) -> None:
    token = await api.token(org.admin)

    async def found(**wanted):
        page = (await api.ask(token, MEMBERS, **wanted))["organization"]["members"]["nodes"]
        return sorted(each["user"]["email"].split("@")[0] for each in page)

    assert await found(role="TEAM_ADMIN") == ["lead"]
    assert await found(text="LEAD@") == ["lead"]
    assert await found(text="_") == []
    assert await found(role="ADMIN", text="lead") == []
    [member] = (await api.ask(token, MEMBERS, text="member@"))["organization"]["members"]["nodes"]
    assert member == {
        "user": {"email": "member@acme.example"},
        "organization": {"slug": "acme"},
        "keys": {"nodes": [{"name": "ci"}]},
        "budgets": [{"limit": "2.00", "scope": {"label": "member@acme.example"}}],
    }


async def test_archived_cost_centers_are_listed_when_asked_for(api, org, work_as) -> None:
    async with work_as(org.admin) as work:
        for code in ("1", "2"):
            row = await create_cost_center(work, org.id, code=code, name=code)
        await archive_cost_center(work, org.id, row.id, expected_version=1)
    text = """query($all: Boolean!) { organization(slug: "acme") {
      costCenters(includeArchived: $all) { nodes { code archivedAt } } } }"""

    async def found(caller, *, all_of_them):
        page = (await api.ask(await api.token(caller), text, all=all_of_them))["organization"]
        return {each["code"]: each["archivedAt"] for each in page["costCenters"]["nodes"]}

    ended = "2026-03-14T09:26:53Z"
    assert await found(org.member, all_of_them=False) == {"1": None}
    assert await found(org.admin, all_of_them=True) == {"1": None, "2": ended}


NODES = "query($ids: [ID!]!) { nodes(ids: $ids) { __typename id } }"


async def test_nodes_come_in_order_with_null_for_what_one_may_not_see(api, org, foreign, key):
    ids = [
        global_id(NodeKind.KEY, org.id, key.id),
        global_id(NodeKind.TEAM, foreign.id, foreign.team),
        global_id(NodeKind.TEAM, org.id, org.team),
        "nonsense",
        global_id(NodeKind.KEY, org.id, key.id),
    ]
    found = (await api.ask(await api.token(org.admin), NODES, ids=ids))["nodes"]
    kinds = [None if each is None else each["__typename"] for each in found]
    assert kinds == ["VirtualKey", None, "Team", None, "VirtualKey"]


@pytest.mark.parametrize(("count", "status"), [(100, None), (101, "BAD_USER_INPUT")])
async def test_at_most_a_hundred_nodes(api, org, count, status) -> None:
    response = await api.post(await api.token(org.admin), NODES, ids=["x"] * count)
    body = response.json()
    code = body["errors"][0]["extensions"]["code"] if "errors" in body else None
    assert code == status


BREAKERS = """query($scope: ScopeInput!) { organization(slug: "acme") { breaker(scope: $scope) {
  state perMinute windows { seconds threshold thresholdSource inheritedFrom { kind label }
    current state source } } } }"""


async def test_a_breaker_tells_whose_threshold_holds(api, org, key, work_as) -> None:
    async with work_as(org.admin) as work:
        team = Scope(ScopeKind.TEAM, org.team)
        await set_breaker(work, org.id, team, minute_nanos=5 * 10**9, hour_nanos=None)
        place = Scope(ScopeKind.ORGANIZATION, org.id)
        await set_breaker(work, org.id, place, minute_nanos=10**9, hour_nanos=9 * 10**9)
    token = await api.token(org.admin)
    member = {"memberId": global_id(NodeKind.MEMBER, org.id, member_id(org.member))}
    found = (await api.ask(token, BREAKERS, scope=member))["organization"]["breaker"]
    closed = {"current": "0.00", "state": "CLOSED", "source": "LEDGER"}
    assert found == {
        "state": "CLOSED",
        "perMinute": None,
        "windows": [
            {
                "seconds": 60,
                "threshold": "5.00",
                "thresholdSource": "TEAM",
                "inheritedFrom": {"kind": "TEAM", "label": "Red"},
                **closed,
            },
            {
                "seconds": 3600,
                "threshold": "9.00",
                "thresholdSource": "ORGANIZATION",
                "inheritedFrom": {"kind": "ORGANIZATION", "label": "Acme"},
                **closed,
            },
        ],
    }
    own = {"teamId": global_id(NodeKind.TEAM, org.id, org.team)}
    found = (await api.ask(token, BREAKERS, scope=own))["organization"]["breaker"]
    assert [each["thresholdSource"] for each in found["windows"]] == ["OWN", "ORGANIZATION"]
    assert found["windows"][0]["inheritedFrom"] is None


async def test_a_breaker_of_a_scope_one_may_not_see_is_null(api, org, foreign) -> None:
    scopes = [
        {"teamId": global_id(NodeKind.TEAM, org.id, org.team)},
        {"organizationId": global_id(NodeKind.ORGANIZATION, org.id, org.id)},
        {"teamId": global_id(NodeKind.TEAM, foreign.id, foreign.team)},
    ]
    token = await api.token(org.member)
    for scope in scopes:
        found = (await api.ask(token, BREAKERS, scope=scope))["organization"]
        assert found == {"breaker": None}
