"""The API end to end: create, refuse, list, look up; nobody sees another organization."""

from __future__ import annotations

import pytest

from controlplane.api.nodes import NodeKind, global_id
from controlplane.keys.secret import SecretKind, kind_of
from controlplane.limits.queries import live_limits
from controlplane.limits.state import LimitState

CREATE = """mutation($input: VirtualKeyCreateInput!) { virtualKeyCreate(input: $input) {
  virtualKey { id name status owner { user { email } } team { slug } } secret replayed
  errors { code message field } } }"""
UPSERT = """mutation($input: BudgetUpsertInput!) { budgetUpsert(input: $input) {
  budget { id limit period enforcement version timezone scope { kind id }
    state { settled held remaining resetsAt asOf utilization source } }
  errors { code message field } } }"""
LISTS = """query($slug: String!, $first: Int!, $after: String) { organization(slug: $slug) {
  id slug currency timezone createdAt
  teams { nodes { slug } } members { nodes { role user { email } } }
  keys(first: $first, after: $after) {
    nodes { id name status } pageInfo { hasNextPage endCursor } }
  budgets { nodes { id limit } } breakers { nodes { id perMinute isOpen } }
  rateLimits { nodes { requestsPerMinute version } } rules { nodes { models } }
  requests { nodes { id } pageInfo { hasNextPage } } } }"""


def place(org) -> str:
    return global_id(NodeKind.ORGANIZATION, org.id, org.id)


async def test_an_admin_creates_lists_and_revokes_a_key(api, org, published) -> None:
    token = await api.token(org.admin)
    wanted = {
        "organizationId": place(org),
        "name": "ci",
        "idempotencyKey": "1",
        "ownerId": global_id(NodeKind.MEMBER, org.id, org.member.membership.member_id),
        "teamId": global_id(NodeKind.TEAM, org.id, org.team),
        "requestsPerMinute": 10,
        "tokensPerMinute": "5000",
        "allowedModels": ["gpt-4o-mini"],
    }
    made = (await api.ask(token, CREATE, input=wanted))["virtualKeyCreate"]
    assert kind_of(made["secret"]) is SecretKind.LIVE_KEY
    assert made["virtualKey"]["status"] == "ACTIVE"
    assert made["virtualKey"]["owner"]["user"]["email"] == "member@acme.example"
    assert len(published) == 1
    again = (await api.ask(token, CREATE, input=wanted))["virtualKeyCreate"]
    assert (again["secret"], again["replayed"]) == (None, True)
    listed = (await api.ask(token, LISTS, slug="acme", first=50))["organization"]
    assert [each["name"] for each in listed["keys"]["nodes"]] == ["ci"]
    assert listed["rateLimits"]["nodes"] == [{"requestsPerMinute": "10", "version": 2}]
    assert listed["rules"]["nodes"] == [{"models": ["gpt-4o-mini"]}]
    assert listed["currency"] == "USD"
    revoke = """mutation($id: ID!) { virtualKeyRevoke(input: {keyId: $id}) {
      virtualKey { status } errors { code } } }"""
    done = await api.ask(token, revoke, id=made["virtualKey"]["id"])
    assert done == {"virtualKeyRevoke": {"virtualKey": {"status": "REVOKED"}, "errors": []}}


async def test_a_budget_shows_its_live_state(api, org, clock) -> None:
    token = await api.token(org.admin)
    wanted = {"scope": {"organizationId": place(org)}, "period": "MONTH", "limit": "12.34"}
    made = (await api.ask(token, UPSERT, input=wanted))["budgetUpsert"]["budget"]
    assert (made["limit"], made["enforcement"]) == ("12.34", "HARD")
    assert made["state"] == {
        "settled": "0.00",
        "held": "0.00",
        "remaining": "12.34",
        "resetsAt": "2026-03-31T22:00:00Z",
        "asOf": "2026-03-14T09:26:53Z",
        "utilization": 0.0,
        "source": "LEDGER",
    }
    async with api.plane.database.read() as session:
        row = await session.scalar(live_limits(org.id))
    api.states[row.id] = LimitState(settled=10**9, held=5, as_of_ns=clock.wall_ns())
    found = await api.ask(
        token,
        """query($id: ID!) { node(id: $id) { ... on Budget { state {
          settled held remaining utilization source } } } }""",
        id=made["id"],
    )
    state = {
        "settled": "1.00",
        "held": "0.000000005",
        "remaining": "11.339999995",
        "utilization": 0.081,
        "source": "LIVE",
    }
    assert found == {"node": {"state": state}}
    stale = (await api.ask(token, UPSERT, input=wanted))["budgetUpsert"]
    assert stale["budget"] is None
    assert [(each["code"], each["field"]) for each in stale["errors"]] == [
        ("STALE_VERSION", ["expectedVersion"])
    ]


async def test_another_organization_does_not_exist(api, org, foreign, published) -> None:
    own, stranger = await api.token(org.admin), await api.token(foreign.admin)
    wanted = {"organizationId": place(org), "name": "ci", "idempotencyKey": "1"}
    key = (await api.ask(own, CREATE, input=wanted))["virtualKeyCreate"]["virtualKey"]
    published.clear()
    assert (await api.ask(stranger, LISTS, slug="acme", first=1))["organization"] is None
    for name in (key["id"], place(org), global_id(NodeKind.TEAM, org.id, org.team)):
        found = await api.ask(stranger, "query($id: ID!) { node(id: $id) { id } }", id=name)
        assert found == {"node": None}
    refused = (await api.ask(stranger, CREATE, input=wanted))["virtualKeyCreate"]
    assert [each["code"] for each in refused["errors"]] == ["NOT_FOUND"]
    assert published == []


async def test_what_a_role_does_not_allow_is_a_fault(api, org, published) -> None:
    token = await api.token(org.billing_viewer)
    response = await api.post(
        token,
        UPSERT,
        input={"scope": {"organizationId": place(org)}, "period": "DAY", "limit": "1"},
    )
    body = response.json()
    assert (response.status_code, body["data"]) == (200, None)
    assert body["errors"][0]["extensions"]["code"] == "FORBIDDEN"
    assert body["errors"][0]["extensions"]["requestId"] == response.headers["x-request-id"]
    assert published == []


async def test_the_operator_looks_into_an_organization(api, org) -> None:
    token = await api.operator_token()
    found = (await api.ask(token, LISTS, slug="acme", first=1))["organization"]
    assert len(found["members"]["nodes"]) == 5


PERMISSIONS = """query($id: ID!) { viewer { user { email isOperator } memberships { role }
  permissions(organizationId: $id) } }"""


async def test_the_viewer_learns_what_it_may_do(api, org) -> None:
    token = await api.token(org.member)
    found = (await api.ask(token, PERMISSIONS, id=place(org)))["viewer"]
    assert found == {
        "user": {"email": "member@acme.example", "isOperator": False},
        "memberships": [{"role": "MEMBER"}],
        "permissions": ["STRUCTURE_READ", "REQUESTS_READ", "KEYS_WRITE"],
    }


@pytest.mark.parametrize(
    ("method", "headers", "body", "status"),
    [
        ("GET", {}, b"", 405),
        ("POST", {"content-type": "text/plain"}, b"{}", 415),
        ("POST", {"content-encoding": "gzip"}, b"{}", 415),
        ("POST", {"accept": "text/html"}, b"{}", 406),
        ("POST", {"authorization": "Bearer cpat_no"}, b"{}", 401),
        ("POST", {}, b"x" * ((1 << 20) + 1), 413),
        ("POST", {}, b"{", 400),
        ("POST", {}, b"[]", 400),
        ("POST", {}, b'{"query": "{"}', 400),
        ("POST", {}, b'{"query": "{ nothing }"}', 422),
        ("POST", {}, b'{"query": "subscription { a }"}', 422),
        ("POST", {"accept": "application/json"}, b'{"query": "{ nothing }"}', 200),
        ("POST", {}, b'{"query": "{ viewer { user { email } } }"}', 200),
    ],
)
async def test_http_statuses(api, org, method, headers, body, status) -> None:
    sent = {
        "authorization": f"Bearer {await api.token(org.admin)}",
        "content-type": "application/json",
        "accept": "application/graphql-response+json",
    } | headers
    response = await api.client.request(method, "/graphql", headers=sent, content=body)
    assert response.status_code == status, response.content
