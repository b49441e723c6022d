"""Lists of keys: filters find exactly what they say, cursors belong to their order."""

from __future__ import annotations

from datetime import timedelta

import pytest

from controlplane.api.nodes import NodeKind, global_id
from controlplane.cost_centers.service import create_cost_center
from controlplane.keys.service import NewKey, create_key
from controlplane.tenancy.changes import update_member, update_team
from tests.controlplane.conftest import member_id

KEYS = """query($filter: KeyFilterInput, $order: KeyOrder! = NAME_ASC, $first: Int! = 50,
  $after: String) { organization(slug: "acme") {
    keys(filter: $filter, orderBy: $order, first: $first, after: $after) {
      nodes { name effectiveCostCenter { code } costCenter { code } }
      pageInfo { hasNextPage endCursor } } } }"""


@pytest.fixture
async def centers(work_as, org, clock) -> dict[str, str]:
    """Keys of several owners; the team, the member and one key have cost centers."""
    ids = {}
    async with work_as(org.admin) as work:
        for code in ("team", "member", "key"):
            ids[code] = (await create_cost_center(work, org.id, code=code, name=code)).id
        await update_team(
            work, org.id, org.team, {"cost_center_id": ids["team"]}, expected_version=1
        )
        owner = member_id(org.member)
        await update_member(
            work, org.id, owner, {"cost_center_id": ids["member"]}, expected_version=1
        )
        hour = work.now + timedelta(hours=1)
        keys = [
            NewKey("Alpha_1", team_id=org.team, expires_at=hour),
            NewKey("beta%", team_id=org.team, member_id=owner, tags={'a"é.b': "x y"}),
            NewKey("BETA 2", member_id=owner, cost_center_id=ids["key"], tags={"a": "x y"}),
            NewKey("gamma", expires_at=hour + timedelta(hours=1), tags={'a"é.b': "x"}),
            NewKey("delta", team_id=org.other_team, expires_at=hour),
        ]
        for number, new in enumerate(keys):
            clock.advance_ns(10**9)
            await create_key(work, org.id, new, idempotency_key=str(number))
    return {code: global_id(NodeKind.COST_CENTER, org.id, each) for code, each in ids.items()}


async def names(api, token, **variables) -> list[str]:
    page = (await api.ask(token, KEYS, **variables))["organization"]["keys"]
    return [each["name"] for each in page["nodes"]]


async def test_a_key_is_booked_on_its_own_else_its_owners_else_its_teams(api, org, centers):
    page = (await api.ask(await api.token(org.admin), KEYS))["organization"]["keys"]
    found = {
        each["name"]: (each["effectiveCostCenter"], each["costCenter"]) for each in page["nodes"]
    }
    assert found == {
        "Alpha_1": ({"code": "team"}, None),
        "beta%": ({"code": "member"}, None),
        "BETA 2": ({"code": "key"}, {"code": "key"}),
        "gamma": (None, None),
        "delta": (None, None),
    }


async def test_filters_find_exactly_what_they_say(api, org, centers) -> None:
    token = await api.token(org.admin)
    ends = "2026-03-14T10:26:53Z"
    after = "2026-03-14T10:26:53.000001Z"
    cases = [
        ({"query": "beta"}, ["BETA 2", "beta%"]),
        ({"query": "TA%"}, ["beta%"]),
        ({"query": "a_1"}, ["Alpha_1"]),
        ({"query": "_"}, ["Alpha_1"]),
        ({"costCenterId": centers["team"]}, ["Alpha_1"]),
        ({"costCenterId": centers["member"]}, ["beta%"]),
        ({"costCenterId": centers["key"]}, ["BETA 2"]),
        ({"tag": {"name": 'a"é.b', "value": "x y"}}, ["beta%"]),
        ({"tag": {"name": "a", "value": "x y"}}, ["BETA 2"]),
        ({"tag": {"name": "a", "value": "x"}}, []),
        ({"expiringBefore": ends}, []),
        ({"expiringBefore": after}, ["Alpha_1", "delta"]),
        ({"expiringBefore": after, "query": "a"}, ["Alpha_1", "delta"]),
        (
            {"ownerId": global_id(NodeKind.MEMBER, org.id, member_id(org.member))},
            ["BETA 2", "beta%"],
        ),
        ({"status": []}, ["Alpha_1", "BETA 2", "beta%", "delta", "gamma"]),
    ]
    for wanted, expected in cases:
        assert sorted(await names(api, token, filter=wanted)) == sorted(expected), wanted


ORDERS = {
    "CREATED_DESC": ["delta", "gamma", "BETA 2", "beta%", "Alpha_1"],
    "NAME_ASC": ["Alpha_1", "BETA 2", "beta%", "delta", "gamma"],
    "EXPIRES_ASC": ["Alpha_1", "delta", "gamma", "beta%", "BETA 2"],
}


@pytest.mark.parametrize("order", ORDERS)
async def test_pages_of_an_order_hold_every_key_once(api, org, centers, order) -> None:
    token = await api.token(org.admin)
    found, after = [], None
    for _ in range(5):
        variables = {"order": order, "first": 1, "after": after}
        page = (await api.ask(token, KEYS, **variables))["organization"]["keys"]
        found += [each["name"] for each in page["nodes"]]
        after = page["pageInfo"]["endCursor"]
    assert page["pageInfo"]["hasNextPage"] is False
    # How punctuation sorts is the database's affair.
    normal = [each.replace("beta%", "BETA 2") for each in found]
    assert normal == [each.replace("beta%", "BETA 2") for each in ORDERS[order]]
    assert sorted(found) == sorted(ORDERS[order])


@pytest.mark.parametrize("order", ORDERS)
async def test_a_cursor_of_another_order_is_refused(api, org, centers, order) -> None:
    token = await api.token(org.admin)
    page = (await api.ask(token, KEYS, order=order, first=1))["organization"]["keys"]
    cursor = page["pageInfo"]["endCursor"]
    for other in set(ORDERS) - {order}:
        response = await api.post(token, KEYS, order=other, first=1, after=cursor)
        [error] = response.json()["errors"]
        assert error["extensions"]["code"] == "BAD_USER_INPUT"
        assert "cursor" in error["message"]
    for nonsense in ("x", "", "bm90aGluZw==", "W10="):
        response = await api.post(token, KEYS, order=order, first=1, after=nonsense)
        assert response.json()["errors"][0]["extensions"]["code"] == "BAD_USER_INPUT"
