"""Values nobody sends by mistake: each is refused by name or stored as it is, never a fault."""

from __future__ import annotations

import json
from base64 import urlsafe_b64encode
from typing import Any

import pytest

from controlplane.api.nodes import NodeKind, global_id
from controlplane.usage.filters import FILTER_TEXT_LENGTH_MAX

TEAM = """mutation($place: ID!, $name: String!) {
  teamCreate(input: {organizationId: $place, name: $name}) { team { name } errors { code } } }"""
KEY = """mutation($input: VirtualKeyCreateInput!) { virtualKeyCreate(input: $input) {
  virtualKey { name expiresAt } errors { code field } } }"""
BUDGET = """mutation($input: BudgetUpsertInput!) { budgetUpsert(input: $input) {
  budget { limit version } errors { code field } } }"""
RATES = """mutation($input: RateLimitSetInput!) { rateLimitSet(input: $input) {
  rateLimit { version } errors { code field } } }"""
REQUESTS = """query($range: TimeRange, $filter: RequestFilterInput, $after: String) {
  organization(slug: "acme") {
    requests(range: $range, filter: $filter, after: $after) { nodes { id } } } }"""
SLUG = "query($slug: String!) { organization(slug: $slug) { id } }"
NODE = "query($id: ID!) { node(id: $id) { id } }"


async def refused(api, token: str, query: str, **variables: Any) -> str:
    """Send what must be refused; gives the code."""
    response = await api.post(token, query, **variables)
    body = response.json()
    assert response.status_code in {200, 400, 422}, body
    if "errors" in body:
        [error] = body["errors"]
        return error["extensions"]["code"]
    [payload] = body["data"].values()
    [error] = payload["errors"]
    return error["code"]


@pytest.mark.parametrize(
    ("text", "variables"),
    [
        ('{ organization(slug: "a\0") { id } }', {}),
        ('{ organization(slug: "\\u0000") { id } }', {}),
        ('{ organization(slug: "\\u{0}") { id } }', {}),
        ('{ organization(slug: "\\u{000000}") { id } }', {}),
        ("{ viewer { user { email } } } # \0", {}),
        (SLUG, {"slug": "a\0"}),
        (SLUG, {"slug": "a", "other": ["x", {"y": "\0"}]}),
        (SLUG, {"slug": "a", "\0": 1}),
    ],
)
async def test_nul_is_refused_however_it_is_written(api, org, text, variables) -> None:
    response = await api.post(await api.token(org.admin), text, **variables)
    [error] = response.json()["errors"]
    assert (response.status_code, error["extensions"]["code"]) == (400, "BAD_USER_INPUT")


async def test_nul_in_a_change_changes_nothing(api, org, published) -> None:
    token = await api.token(org.admin)
    place = global_id(NodeKind.ORGANIZATION, org.id, org.id)
    assert await refused(api, token, TEAM, place=place, name="a\0b") == "BAD_USER_INPUT"
    assert published == []


INSTANTS = [
    "0001-01-01T00:00:00Z",
    "0001-01-01T00:00:00+14:00",
    "1969-12-31T23:59:59Z",
    "2262-01-01T00:00:00Z",
    "9999-12-31T23:59:59Z",
    "9999-12-31T23:59:59-14:00",
    "10000-01-01T00:00:00Z",
    "2026-02-30T00:00:00Z",
    "2026-03-14T09:26:53",
    "yesterday",
    "",
    "9" * 1_000_000,
    1,
    2**63,
    None,
    {},
]


async def test_an_instant_out_of_range_is_refused(api, org, published) -> None:
    token = await api.token(org.admin)
    key = {
        "organizationId": global_id(NodeKind.ORGANIZATION, org.id, org.id),
        "name": "late",
        "idempotencyKey": "1",
    }
    for instant in INSTANTS:
        code = await refused(api, token, REQUESTS, range={"from": instant})
        assert (instant, code) == (instant, "BAD_USER_INPUT")
        if instant is not None:
            code = await refused(api, token, KEY, input=key | {"expiresAt": instant})
            assert (instant, code) == (instant, "BAD_USER_INPUT")
    assert published == []


async def test_an_instant_at_the_edge_is_not(api, org) -> None:
    between = {"from": "1970-01-01T00:00:00Z", "to": "2199-12-31T00:00:00Z"}
    found = await api.ask(await api.token(org.admin), REQUESTS, range=between)
    assert found == {"organization": {"requests": {"nodes": []}}}


AMOUNTS = ["NaN", "Infinity", "1e400", "-1", "1" * 5000, "0.0000000001", "", " 1", "٣", 1, 1.5]
AMOUNTS_OF_JSON = [*AMOUNTS, 2**63, True, [], {}]
VERSIONS = [2**31, -(2**31) - 1, 2**63, 1.5, "1", True, []]
COUNTS = [str(2**63), "-1", "1" * 5000, "x", "", 5, 2**63, 1.5, True, {}]


async def test_a_number_that_does_not_fit_is_refused(api, org, published) -> None:
    token = await api.token(org.admin)
    budget = {
        "scope": {"organizationId": global_id(NodeKind.ORGANIZATION, org.id, org.id)},
        "period": "DAY",
        "limit": "1",
    }
    rates = {"scope": {"keyId": global_id(NodeKind.KEY, org.id, org.team)}}
    wrong = [
        *((BUDGET, budget | {"limit": each}) for each in AMOUNTS_OF_JSON),
        *((BUDGET, budget | {"expectedVersion": each}) for each in VERSIONS),
        *((RATES, rates | {"tokensPerMinute": each}) for each in COUNTS),
    ]
    for query, wanted in wrong:
        code = await refused(api, token, query, input=wanted)
        assert code in {"BAD_USER_INPUT", "INVALID"}, wanted
    assert published == []


LONG = "é" * 500_000
WEIRD = [LONG, "\u202e", "\U0010ffff", "\ud7ff\ue000", "'; DROP TABLE teams; --", "=cmd()", "", " "]


async def test_texts_that_find_nothing_find_nothing(api, org) -> None:
    token = await api.token(org.admin)
    for text in WEIRD:
        await finds_nothing(api, token, text)


async def finds_nothing(api, token: str, text: str) -> None:
    assert await api.ask(token, SLUG, slug=text) == {"organization": None}
    assert await api.ask(token, NODE, id=text) == {"node": None}
    assert await refused(api, token, REQUESTS, after=text) == "BAD_USER_INPUT"
    wanted = {"requestId": text}
    assert await refused(api, token, REQUESTS, filter=wanted) == "BAD_USER_INPUT"
    if len(text) > FILTER_TEXT_LENGTH_MAX:
        assert await refused(api, token, REQUESTS, filter={"models": [text]}) == "BAD_USER_INPUT"
        return
    found = await api.ask(token, REQUESTS, filter={"models": [text]})
    assert found == {"organization": {"requests": {"nodes": []}}}


async def test_a_name_of_a_megabyte_is_refused(api, org, published) -> None:
    token = await api.token(org.admin)
    place = global_id(NodeKind.ORGANIZATION, org.id, org.id)
    assert await refused(api, token, TEAM, place=place, name=LONG) == "INVALID"
    long = f'{{ organization(slug: "{LONG}") {{ id }} }}'
    response = await api.post(token, long)
    [error] = response.json()["errors"]
    assert (response.status_code, error["extensions"]["code"]) == (400, "QUERY_TOO_EXPENSIVE")
    assert published == []


async def test_a_list_of_many_values_is_refused(api, org) -> None:
    token = await api.token(org.admin)
    for wanted in ({"models": ["a"] * 101}, {"httpStatus": [1] * 40_000}):
        assert await refused(api, token, REQUESTS, filter=wanted) == "BAD_USER_INPUT"


KEYS = """query($order: KeyOrder!, $after: String) { organization(slug: "acme") {
  keys(orderBy: $order, after: $after) { nodes { id } } } }"""


@pytest.mark.parametrize(
    ("order", "name", "value"),
    [
        ("NAME_ASC", "name-asc", "a\0"),
        ("NAME_ASC", "name-asc", "\ud800"),
        ("NAME_ASC", "name-asc", 1),
        ("NAME_ASC", "expires-asc", "a"),
        ("EXPIRES_ASC", "expires-asc", "2026-03-14T09:26:53"),
        ("EXPIRES_ASC", "expires-asc", "2026-03-14"),
        ("EXPIRES_ASC", "expires-asc", "0001-01-01T00:00:00+14:00"),
        ("EXPIRES_ASC", "expires-asc", "9999-12-31T23:59:59-14:00"),
    ],
)
async def test_a_forged_cursor_is_refused(api, org, order, name, value) -> None:
    raw = json.dumps([name, "019cebab-8748-7af8-ac62-c8ce27ef5a11", value])
    cursor = urlsafe_b64encode(raw.encode()).decode()
    token = await api.token(org.admin)
    assert await refused(api, token, KEYS, order=order, after=cursor) == "BAD_USER_INPUT"
