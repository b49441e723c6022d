"""Requests in the API: what a record says, who may see it, and which are found."""

from __future__ import annotations

from base64 import urlsafe_b64encode
from typing import Any
from uuid import UUID, uuid4

import pytest

from controlplane.api.nodes import NodeKind, global_id
from controlplane.usage.queries import cursor
from tests.controlplane.conftest import member_id
from tests.controlplane.usage.records import START_NS, counted, request, store

FIELDS = """requestId at keyId teamId memberId costCenterId feature agent endUser session environment
  requestClass tags { name value } route requestedModel servedModel provider decision code errorCode
  limitId limitScope httpStatus currency held cost charge inputTokens outputTokens cachedTokens
  reasoningTokens outputCap usageSource latencyMs firstByteMs streamed clientDisconnected
  upstreamStatus policyVersion
  key { name owner { user { email } } team { name } } team { name } member { user { email } }"""

PAGE = """query($first: Int! = 50, $after: String, $range: TimeRange, $filter: RequestFilterInput) {
  organization(slug: "acme") { requests(first: $first, after: $after, range: $range, filter: $filter) {
    nodes { id %s } pageInfo { hasNextPage endCursor } } } }"""

ONE = """query($id: String!) { organization(slug: "acme") {
  request(requestId: $id) { id requestId charge } } }"""


async def page(api, caller, fields: str = "requestId", **variables: Any) -> dict[str, Any]:
    answer = await api.ask(await api.token(caller), PAGE % fields, **variables)
    return answer["organization"]["requests"]


async def find(api, caller, name: str) -> dict[str, Any] | None:
    return (await api.ask(await api.token(caller), ONE, id=name))["organization"]["request"]


async def code_of(api, caller, query: str, **variables: Any) -> str:
    response = await api.post(await api.token(caller), query, **variables)
    [error] = response.json()["errors"]
    return error["extensions"]["code"]


async def test_a_record_is_shown_with_all_that_is_known(api, org, keys, by, database) -> None:
    center, limit = uuid4(), uuid4()
    facts = {
        "id": UUID(int=255),
        "at_ns": START_NS,
        "cost_center_id": center,
        "feature": "chat",
        "agent": "robot",
        "end_user": "u-1",
        "session": "s-1",
        "environment": "production",
        "request_class": "batch",
        "tags": {"b": "2", "a": "1"},
        "requested_model": "gpt",
        "served_model": "gpt-4o",
        "provider": "openai",
        "decision": "refused",
        "code": "team_budget_exceeded",
        "error_code": "odd",
        "limit_id": limit,
        "limit_scope": "team",
        "http_status": 402,
        "held_nanos": 3_000_000_000,
        "cost_nanos": 1_000_000_000,
        "charge_nanos": 2_000_000_000,
        "input_tokens": 5,
        "output_tokens": 4,
        "cached_tokens": 3,
        "reasoning_tokens": 2,
        "output_cap": 9,
        "usage_source": "provider",
        "latency_ns": 1_999_999,
        "first_byte_at_ns": START_NS + 2_000_000,
        "streamed": True,
        "client_disconnected": True,
        "upstream_status": 200,
    }
    await store(database, by("member", **facts))
    [node] = (await page(api, org.admin, FIELDS))["nodes"]
    member = {"user": {"email": "member@acme.example"}}
    assert node == {
        "id": global_id(NodeKind.REQUEST, org.id, UUID(int=255)),
        "requestId": f"req_{255:032x}",
        "at": "2026-03-14T09:26:53Z",
        "keyId": global_id(NodeKind.KEY, org.id, keys.mine),
        "teamId": global_id(NodeKind.TEAM, org.id, org.team),
        "memberId": global_id(NodeKind.MEMBER, org.id, member_id(org.member)),
        "costCenterId": global_id(NodeKind.COST_CENTER, org.id, center),
        "feature": "chat",
        "agent": "robot",
        "endUser": "u-1",
        "session": "s-1",
        "environment": "production",
        "requestClass": "batch",
        "tags": [{"name": "a", "value": "1"}, {"name": "b", "value": "2"}],
        "route": "/v1/chat/completions",
        "requestedModel": "gpt",
        "servedModel": "gpt-4o",
        "provider": "openai",
        "decision": "refused",
        "code": "team_budget_exceeded",
        "errorCode": "odd",
        "limitId": global_id(NodeKind.BUDGET, org.id, limit),
        "limitScope": "team",
        "httpStatus": 402,
        "currency": "USD",
        "held": "3.00",
        "cost": "1.00",
        "charge": "2.00",
        "inputTokens": "5",
        "outputTokens": "4",
        "cachedTokens": "3",
        "reasoningTokens": "2",
        "outputCap": "9",
        "usageSource": "provider",
        "latencyMs": 1,
        "firstByteMs": 2,
        "streamed": True,
        "clientDisconnected": True,
        "upstreamStatus": 200,
        "policyVersion": "1",
        "key": {"name": "mine", "owner": member, "team": {"name": "Red"}},
        "team": {"name": "Red"},
        "member": member,
    }


async def test_a_record_outlives_what_it_names(api, org, database) -> None:
    gone = {"team_id": uuid4(), "member_id": uuid4(), "first_byte_at_ns": START_NS - 1}
    await store(database, request(org.id, **gone))
    [node] = (
        await page(api, org.admin, "teamId firstByteMs key { name } team { name } member { id }")
    )["nodes"]
    assert (node["key"], node["team"], node["member"], node["firstByteMs"]) == (None, None, None, 0)
    assert node["teamId"] == global_id(NodeKind.TEAM, org.id, gone["team_id"])


async def test_a_foreign_object_is_not_shown_in_a_record(api, org, foreign, database) -> None:
    theirs = {"team_id": foreign.team, "member_id": member_id(foreign.member)}
    await store(database, request(org.id, **theirs))
    [node] = (await page(api, org.admin, "team { name } member { id }"))["nodes"]
    assert (node["team"], node["member"]) == (None, None)


async def test_a_lead_sees_no_key_and_member_that_left_the_team(
    api, org, keys, by, database
) -> None:
    # Recorded when both were still in the lead's team.
    await store(database, by("other_member", team_id=org.team))
    fields = "key { name } team { name } member { id }"
    [node] = (await page(api, org.team_admin, fields))["nodes"]
    assert (node["key"], node["team"], node["member"]) == (None, {"name": "Red"}, None)
    [node] = (await page(api, org.admin, fields))["nodes"]
    assert node["key"] == {"name": "other"}


@pytest.mark.parametrize(
    ("code", "scope", "kind", "whose"),
    [
        ("rate_limit_exceeded", "key", NodeKind.RATE_LIMIT, "key_id"),
        ("spend_circuit_open", "organization", NodeKind.ORGANIZATION_BREAKER, "organization_id"),
        ("spend_circuit_open", "team", NodeKind.TEAM_BREAKER, "team_id"),
        ("spend_circuit_open", "member", NodeKind.MEMBER_BREAKER, "member_id"),
        ("key_budget_exceeded", "key", NodeKind.BUDGET, "limit_id"),
    ],
)
async def test_a_limit_is_named_as_the_api_names_it(
    api, org, by, database, code, scope, kind, whose
) -> None:
    row = by("member", code=code, limit_scope=scope, limit_id=uuid4(), decision="refused")
    want = global_id(kind, org.id, getattr(row, whose))
    await store(database, row)
    [node] = (await page(api, org.admin, "limitId"))["nodes"]
    assert node["limitId"] == want


async def test_a_request_is_found_by_either_form_of_its_id(api, org, by, database) -> None:
    row = by("member", charge_nanos=1)
    name, header = str(row.id), f"req_{row.id.hex}"
    want = {"id": global_id(NodeKind.REQUEST, org.id, row.id), "requestId": header}
    await store(database, row, by("member"))
    for text in (name, header):
        assert await find(api, org.admin, text) == {**want, "charge": "0.000000001"}
        listed = await page(api, org.admin, filter={"requestId": text})
        assert listed["nodes"] == [want]


async def test_a_request_is_found_only_by_who_may_see_it(api, org, foreign, by, database) -> None:
    mine, theirs = by("member"), request(foreign.id)
    mine_id, theirs_id = str(mine.id), str(theirs.id)
    await store(database, mine, theirs)
    for name, caller in org.callers().items():
        assert (await find(api, caller, mine_id) is None) == (name == "other_member")
        assert await find(api, caller, theirs_id) is None
        assert await find(api, caller, str(uuid4())) is None


@pytest.mark.parametrize("text", ["", "req_", "req_xyz", "1", "\0", "req_" + "0" * 33])
async def test_what_is_no_request_id_is_refused(api, org, text) -> None:
    assert await code_of(api, org.admin, ONE, id=text) == "BAD_USER_INPUT"
    query = PAGE % "requestId"
    assert await code_of(api, org.admin, query, filter={"requestId": text}) == "BAD_USER_INPUT"


async def test_filters_of_the_api_reach_the_records(api, org, keys, by, database) -> None:
    row = by(
        "member",
        at_ns=START_NS - 1,
        charge_nanos=2_000_000_000,
        latency_ns=5_000_000,
        upstream_status=503,
        http_status=502,
        streamed=True,
        decision="failed",
        code="upstream_error",
        served_model="m",
        provider="p",
        feature="f",
        agent="a",
        end_user="e",
        session="s",
        environment="v",
        request_class="batch",
        tags={"t": "1"},
    )
    await store(database, row, by("other_member", at_ns=START_NS - 1, charge_nanos=3_000_000_000))
    matching: list[tuple[str, Any, Any]] = [
        ("keyIds", [global_id(NodeKind.KEY, org.id, keys.mine)], None),
        ("teamIds", [global_id(NodeKind.TEAM, org.id, org.team)], None),
        ("memberIds", [global_id(NodeKind.MEMBER, org.id, member_id(org.member))], None),
        ("models", ["m"], ["n"]),
        ("providers", ["p"], ["n"]),
        ("features", ["f"], ["n"]),
        ("agents", ["a"], ["n"]),
        ("endUsers", ["e"], ["n"]),
        ("sessions", ["s"], ["n"]),
        ("environments", ["v"], ["n"]),
        ("requestClasses", ["batch"], ["interactive"]),
        ("tags", [{"name": "t", "value": "1"}], [{"name": "t", "value": "2"}]),
        ("outcomes", ["FAILED"], ["REFUSED"]),
        ("decisions", ["failed"], ["refused"]),
        ("codes", ["upstream_error"], ["n"]),
        ("httpStatus", [502], [503]),
        ("upstreamStatus", [503], [502]),
        ("streamed", True, None),
        ("maxCost", "2.00", "1.999999999"),
        ("minLatencyMs", 5, 6),
    ]
    for field, value, miss in matching:
        found = await page(api, org.admin, "charge", filter={field: value})
        assert [each["charge"] for each in found["nodes"]] == ["2.00"], field
        if miss is not None:
            assert (await page(api, org.admin, filter={field: miss}))["nodes"] == [], field
    found = await page(api, org.admin, "charge", filter={"minCost": "2.000000001"})
    assert [each["charge"] for each in found["nodes"]] == ["3.00"]


async def test_a_longer_page_with_every_object_takes_no_more_statements(
    api, org, keys, by, database
) -> None:
    rows = (by(("member", "other_member")[n % 2], at_ns=START_NS + n) for n in range(101))
    await store(database, *rows)
    seen = []
    for first in (10, 100):
        with counted(database) as statements:
            found = await page(api, org.admin, FIELDS, first=first)
        assert (len(found["nodes"]), found["pageInfo"]["hasNextPage"]) == (first, True)
        seen.append(len(statements))
    assert seen[0] == seen[1]


async def test_forged_cursors_are_refused_or_lead_nowhere_else(
    api, org, foreign, by, database
) -> None:
    theirs, mine = request(foreign.id, START_NS + 5), by("member", at_ns=START_NS)
    name = f"req_{mine.id.hex}"
    of_theirs = cursor(theirs)
    await store(database, theirs, mine)
    query = PAGE % "requestId"
    wrong = (b"", b"id-desc:" + bytes(16), b"b" + bytes(24), b"a" + bytes(23), b"a" + bytes(25))
    for raw in wrong:
        forged = urlsafe_b64encode(raw).decode()
        assert await code_of(api, org.admin, query, after=forged) == "BAD_USER_INPUT"
    found = await page(api, org.admin, after=of_theirs)
    assert [each["requestId"] for each in found["nodes"]] == [name]
    newest = urlsafe_b64encode(b"a\x7f" + b"\xff" * 23).decode()
    assert [each["requestId"] for each in (await page(api, org.admin, after=newest))["nodes"]] == [
        name
    ]
    oldest = urlsafe_b64encode(b"a\x80" + bytes(23)).decode()
    assert (await page(api, org.admin, after=oldest))["nodes"] == []


@pytest.mark.parametrize(
    "range_",
    [
        {"from": "2026-03-14T09:00:00Z", "to": "2026-03-14T08:59:59Z"},
        {"from": "0001-01-01T00:00:00Z"},
        {"from": "2026-03-14T00:00:00Z", "to": "9999-12-31T00:00:00Z"},
        {"from": "2026-03-14T00:00:00Z", "timezone": "Nowhere"},
    ],
)
async def test_a_range_that_cannot_be_is_refused(api, org, range_) -> None:
    assert await code_of(api, org.admin, PAGE % "id", range=range_) == "BAD_USER_INPUT"


async def test_a_lead_sees_its_own_requests_in_another_team(api, org, by, database) -> None:
    """As `node` shows them: a list that left them out would contradict it."""
    lead = org.team_admin.membership.member_id
    own = by("other_member", member_id=lead)
    strange, of_team = by("other_member"), by("member")
    await store(database, own, strange, of_team)
    text = """{ organization(slug: "acme") { requests { nodes { id } }
      spend(range: {from: "2026-01-01T00:00:00Z", to: "2027-01-01T00:00:00Z"}) { requests }
      usage(range: {from: "2026-01-01T00:00:00Z", to: "2027-01-01T00:00:00Z"}, bucket: MONTH) {
        totals { requests } } } }"""
    found = (await api.ask(await api.token(org.team_admin), text))["organization"]
    shown = {each["id"] for each in found["requests"]["nodes"]}
    assert shown == {global_id(NodeKind.REQUEST, org.id, each.id) for each in (own, of_team)}
    assert (found["spend"]["requests"], found["usage"]["totals"]["requests"]) == ("2", "2")
