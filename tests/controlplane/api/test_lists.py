"""Lists: pages without loss or doubles, the same number of queries for any page size."""

from __future__ import annotations

import pytest
from sqlalchemy import event

from controlplane.keys.service import NewKey, create_key

KEYS = """query($first: Int!, $after: String) { organization(slug: "acme") {
  keys(first: $first, after: $after) {
    nodes { name owner { user { email } } team { slug } }
    pageInfo { hasNextPage hasPreviousPage endCursor } } } }"""


@pytest.fixture
async def keys(work_as, org) -> list[str]:
    names = [f"key {number:02d}" for number in range(23)]
    owners = (org.member, org.other_member, org.admin)
    async with work_as(org.admin) as work:
        for number, name in enumerate(names):
            owner = owners[number % 3].membership
            new = NewKey(name, member_id=owner.member_id, team_id=owner.team_id)
            await create_key(work, org.id, new, idempotency_key=name)
    return names


async def test_pages_hold_every_key_once(api, org, keys) -> None:
    token = await api.token(org.admin)
    found, after, pages = [], None, 0
    while True:
        page = (await api.ask(token, KEYS, first=5, after=after))["organization"]["keys"]
        found += [each["name"] for each in page["nodes"]]
        pages += 1
        assert page["pageInfo"]["hasPreviousPage"] is (after is not None)
        if not page["pageInfo"]["hasNextPage"]:
            break
        after = page["pageInfo"]["endCursor"]
    assert pages == 5
    assert sorted(found) == keys


async def test_a_larger_page_takes_no_more_queries(api, org, keys, database) -> None:
    token = await api.token(org.admin)
    statements: list[str] = []
    engine = database._readers.sync_engine

    def count(_connection, _cursor, statement, *_rest) -> None:
        statements.append(statement)

    event.listen(engine, "before_cursor_execute", count)
    seen = []
    for first in (10, 100):
        statements.clear()
        await api.ask(token, KEYS, first=first)
        seen.append(len(statements))
    assert seen[0] == seen[1]


async def test_each_role_lists_what_it_may_see(api, org, keys) -> None:
    async def names(caller) -> int:
        page = (await api.ask(await api.token(caller), KEYS, first=100))["organization"]["keys"]
        return len(page["nodes"])

    assert [await names(each) for each in (org.admin, org.billing_viewer)] == [23, 23]
    assert [await names(each) for each in (org.team_admin, org.member)] == [8, 8]


@pytest.mark.parametrize("variables", [{"first": 0}, {"first": 101}, {"first": 1, "after": "x"}])
async def test_a_page_that_cannot_be_is_refused(api, org, variables) -> None:
    response = await api.post(await api.token(org.admin), KEYS, **variables)
    [error] = response.json()["errors"]
    assert error["extensions"]["code"] == "BAD_USER_INPUT"
