"""Pages of requests: nothing lost, nothing twice, nobody else's."""

from __future__ import annotations

from typing import Any
from uuid import UUID, uuid4

import pytest

from controlplane.db import Database
from controlplane.errors import InvalidInput
from controlplane.usage.filters import FILTER_TEXT_LENGTH_MAX, FILTER_VALUES_MAX, RequestFilter
from controlplane.usage.queries import PAGE_ROWS_MAX, page_of_requests, page_query, read_cursor
from tests.controlplane.usage.records import START_NS, counted, plan_of, request, store

KEY, TEAM, MEMBER, REQUEST = uuid4(), uuid4(), uuid4(), uuid4()
# A tag may be called anything printable, also what means something to SQL or in a JSON path.
AWKWARD = """$."a'b\\c[0]é 😀 #-1 %s :x"""


async def page(database: Database, organization_id: UUID, **arguments: Any):
    async with database.read() as session:
        return await page_of_requests(session, organization_id, **({"first": 50} | arguments))


@pytest.fixture
def organization_id() -> UUID:
    return uuid4()


async def test_pages_lose_and_double_nothing_while_requests_arrive(database, organization_id):
    # Several requests share an instant, so that the id has to decide.
    rows = [request(organization_id, START_NS + index // 4) for index in range(57)]
    want = sorted(((row.admitted_at_ns, row.id) for row in rows), reverse=True)
    await store(database, *rows)
    seen: list[tuple[int, UUID]] = []
    after: str | None = None
    while True:
        read = await page(database, organization_id, first=10, after=after)
        seen += [(row.admitted_at_ns, row.id) for row in read.items]
        if not read.has_next:
            break
        assert len(read.items) == 10
        after = read.end_cursor
        await store(database, request(organization_id, START_NS + 1_000 + len(seen)))
    assert seen == want
    assert read_cursor(read.end_cursor) == want[-1]


async def test_a_last_full_page_has_no_next(database, organization_id):
    await store(database, *(request(organization_id, START_NS + index) for index in range(3)))
    assert (await page(database, organization_id, first=2)).has_next
    assert not (await page(database, organization_id, first=3)).has_next


async def test_an_organization_without_requests_has_an_empty_page(database, organization_id):
    await store(database, request(uuid4()))
    read = await page(database, organization_id)
    assert (read.items, read.has_next, read.end_cursor) == ((), False, None)


async def test_another_organizations_request_is_not_found_by_its_id(database, organization_id):
    theirs = request(uuid4())
    theirs_id = theirs.id
    await store(database, theirs)
    read = await page(database, organization_id, filter=RequestFilter(request_id=theirs_id))
    assert read.items == ()


async def test_a_range_holds_its_start_and_not_its_end(database, organization_id):
    await store(database, *(request(organization_id, START_NS + index) for index in range(4)))
    read = await page(database, organization_id, starts_ns=START_NS + 1, ends_ns=START_NS + 3)
    assert [row.admitted_at_ns - START_NS for row in read.items] == [2, 1]


@pytest.mark.parametrize(
    ("wanted", "fields", "near_miss"),
    [
        (RequestFilter(models=("a", "b")), {"served_model": "b", "requested_model": "z"},
         {"served_model": "z", "requested_model": "b"}),
        (RequestFilter(models=("a",)), {"requested_model": "a", "decision": "refused"},
         {"requested_model": "b", "decision": "refused"}),
        (RequestFilter(providers=("one",)), {"provider": "one"}, {"provider": None}),
        (RequestFilter(decisions=("refused",)), {"decision": "refused"}, {"decision": "failed"}),
        (RequestFilter(codes=("x", "y")), {"code": "y"}, {"code": "z"}),
        (RequestFilter(http_statuses=(402, 429)), {"http_status": 429}, {"http_status": 200}),
        (RequestFilter(key_ids=(KEY,)), {"key_id": KEY}, {"key_id": TEAM}),
        (RequestFilter(team_ids=(TEAM,)), {"team_id": TEAM}, {"team_id": None}),
        (RequestFilter(member_ids=(MEMBER,)), {"member_id": MEMBER}, {"member_id": TEAM}),
        (RequestFilter(charge_nanos_min=2**40), {"charge_nanos": 2**40}, {"charge_nanos": 2**40 - 1}),
        (RequestFilter(request_id=REQUEST), {"id": REQUEST}, {}),
        (RequestFilter(outcomes=("failed",)), {"decision": "failed"}, {"decision": "refused"}),
        (RequestFilter(upstream_statuses=(500, 503)), {"upstream_status": 503}, {"upstream_status": None}),
        (RequestFilter(cost_center_ids=(TEAM,)), {"cost_center_id": TEAM}, {"team_id": TEAM}),
        (RequestFilter(features=("é",)), {"feature": "é"}, {"feature": "É"}),
        (RequestFilter(agents=("a",)), {"agent": "a"}, {"agent": "A"}),
        (RequestFilter(end_users=("a",)), {"end_user": "a"}, {"end_user": "a "}),
        (RequestFilter(sessions=("a",)), {"session": "a"}, {"agent": "a"}),
        (RequestFilter(environments=("a",)), {"environment": "a"}, {"environment": "b"}),
        (RequestFilter(request_classes=("batch",)), {"request_class": "batch"}, {}),
        (RequestFilter(tags=(("a", "1"),)), {"tags": {"a": "1"}}, {"tags": {"a": "2", "b": "1"}}),
        (RequestFilter(tags=(("a", "1"), ("a", "2"), ("b", "3"))), {"tags": {"a": "2", "b": "3"}},
         {"tags": {"a": "2"}}),
        (RequestFilter(tags=((AWKWARD, AWKWARD),)), {"tags": {AWKWARD: AWKWARD}},
         {"tags": {"x": AWKWARD}}),
        (RequestFilter(streamed=True), {"streamed": True}, {"streamed": False}),
        (RequestFilter(streamed=False), {"streamed": False}, {"streamed": True}),
        (RequestFilter(charge_nanos_max=2**40), {"charge_nanos": 2**40}, {"charge_nanos": 2**40 + 1}),
        (RequestFilter(latency_ns_min=2**40), {"latency_ns": 2**40}, {"latency_ns": 2**40 - 1}),
        (RequestFilter(decisions=("refused",), http_statuses=(402,)),
         {"decision": "refused", "http_status": 402}, {"decision": "refused", "http_status": 429}),
    ],
)  # fmt: skip
async def test_a_filter_lets_through_what_it_names(
    database, organization_id, wanted, fields, near_miss
):
    match = request(organization_id, **fields)
    match_id = match.id
    await store(database, match, request(organization_id, **near_miss))
    assert [row.id for row in (await page(database, organization_id, filter=wanted)).items] == [
        match_id
    ]
    assert len((await page(database, organization_id)).items) == 2


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({"first": 0}, ("first",)),
        ({"first": PAGE_ROWS_MAX + 1}, ("first",)),
        ({"after": ""}, ("after",)),
        ({"after": "é"}, ("after",)),
        ({"after": "YQ"}, ("after",)),
        ({"after": "b" * 34}, ("after",)),
        ({"filter": RequestFilter(codes=("x",) * (FILTER_VALUES_MAX + 1))}, ("filter", "codes")),
        (
            {"filter": RequestFilter(tags=(("x", "y"),) * (FILTER_VALUES_MAX + 1))},
            ("filter", "tags"),
        ),
        (
            {"filter": RequestFilter(agents=("x" * (FILTER_TEXT_LENGTH_MAX + 1),))},
            ("filter", "agents"),
        ),
        ({"filter": RequestFilter(models=("\0",))}, ("filter", "models")),
        ({"filter": RequestFilter(end_users=("\ud800",))}, ("filter", "endUsers")),
        ({"filter": RequestFilter(tags=(("\0", "x"),))}, ("filter", "tags")),
        ({"filter": RequestFilter(tags=(("x", "\0"),))}, ("filter", "tags")),
    ],
)
async def test_what_is_out_of_range_is_refused(database, organization_id, arguments, field):
    with pytest.raises(InvalidInput) as refused:
        await page(database, organization_id, **arguments)
    assert refused.value.field == field


async def test_the_largest_page_and_list_are_served(database, organization_id):
    await store(database, *(request(organization_id, code="x") for _ in range(PAGE_ROWS_MAX + 1)))
    wanted = RequestFilter(
        codes=("x",) * (FILTER_VALUES_MAX - 1) + ("y" * FILTER_TEXT_LENGTH_MAX,),
    )
    read = await page(database, organization_id, first=PAGE_ROWS_MAX, filter=wanted)
    assert len(read.items) == PAGE_ROWS_MAX
    assert read.has_next


async def test_text_of_a_filter_is_a_value_and_never_sql(database, organization_id):
    await store(database, request(organization_id, code="x"))
    wanted = RequestFilter(codes=("x') OR 1=1 --",))
    assert (await page(database, organization_id, filter=wanted)).items == ()


async def test_a_page_takes_one_query_whatever_its_size(database, organization_id):
    await store(database, *(request(organization_id) for _ in range(30)))
    with counted(database) as statements:
        for first in (10, 100):
            await page(database, organization_id, first=first)
    assert len(statements) == 2


@pytest.mark.parametrize("keys", [1, 2])
async def test_a_page_of_a_key_is_read_down_the_index_of_keys(database, organization_id, keys):
    owners = [uuid4() for _ in range(40)]
    rows = (request(organization_id, START_NS + n, key_id=owners[n % 40]) for n in range(2_000))
    await store(database, *rows)
    wanted = RequestFilter(key_ids=tuple(owners[:keys]))
    query = page_query(organization_id, first=50, starts_ns=START_NS, filter=wanted)
    plan = await plan_of(database, query)
    assert "ix_decision_records_key" in plan, plan
