"""Reports say what adding up the records one by one says, on either database."""

from __future__ import annotations

import os
from dataclasses import asdict, replace
from datetime import datetime
from typing import Any
from uuid import UUID, uuid4
from zoneinfo import ZoneInfo

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from controlplane.clock import nanoseconds
from controlplane.db import Database
from controlplane.usage.filters import RequestFilter
from controlplane.usage.report.buckets import Bucket, calendar
from controlplane.usage.report.queries import (
    Dimension,
    Question,
    Report,
    empty_report,
    read_report,
)
from controlplane.usage.totals import NOTHING, Totals
from tests.controlplane.usage.model import expected
from tests.controlplane.usage.records import counted, request, store

FULL = os.environ.get("COMPTROLLER_TEST_FULL") == "1"
INTEGER_MAX = 2**63 - 1
HOUR_NS = 3_600_000_000_000
# Zones, and an instant at which each changes its clocks.
TURNS = {
    "UTC": "2026-01-01T00:00Z",
    "Europe/Berlin": "2026-10-25T01:00Z",
    "America/New_York": "2026-03-08T07:00Z",
    "Australia/Lord_Howe": "2026-04-04T15:00Z",
    "Asia/Kathmandu": "2026-02-28T18:15Z",
    "America/Sao_Paulo": "2018-11-04T03:00Z",
    "America/St_Johns": "2010-11-07T02:31Z",
    "Asia/Beirut": "2024-10-26T21:00Z",
    "America/Havana": "2026-11-01T05:00Z",
    "Pacific/Apia": "2011-12-30T10:00Z",
    "Africa/Casablanca": "2026-02-15T02:00Z",
}
HOURS_MAX = {
    Bucket.MINUTE: 2,
    Bucket.HOUR: 72,
    Bucket.DAY: 480,
    Bucket.WEEK: 1_500,
    Bucket.MONTH: 5_000,
}
TEXTS = (None, "a", "Z", "é", "😀", "")
TEAMS = (None, *(UUID(int=number << 96) for number in (1, 2, 255)))
TAG = 'a"b'
AMOUNTS = st.sampled_from((0, 1, 3, 10**9, 2**32 - 1, 2**32, INTEGER_MAX))

ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "at": st.floats(0, 1, exclude_max=True)
            | st.sampled_from(("start", "last", "end", "turn")),
            "team_id": st.sampled_from(TEAMS),
            "feature": st.sampled_from(TEXTS),
            "served_model": st.sampled_from(TEXTS[:3]),
            "requested_model": st.sampled_from(TEXTS[:3]),
            "tags": st.sampled_from(({}, {TAG: "1"}, {TAG: "2", "b": "1"}, {"b": "2"})),
            "decision": st.sampled_from(("allowed", "refused", "failed")),
            "charge_nanos": AMOUNTS,
            "input_tokens": AMOUNTS,
            "output_tokens": AMOUNTS,
            "cached_tokens": AMOUNTS,
        }
    ),
    max_size=25,
)
FILTERS = st.builds(
    RequestFilter,
    team_ids=st.sampled_from(((), TEAMS[1:2], TEAMS[1:3])),
    models=st.sampled_from(((), (), ("a",), ("a", "Z"))),
    outcomes=st.sampled_from(((), (), ("allowed",), ("refused", "failed"))),
    features=st.sampled_from(((), (), ("é", "😀"))),
    tags=st.sampled_from(((), (), ((TAG, "1"),), ((TAG, "1"), (TAG, "2"), ("b", "1")))),
)
DIMENSIONS = st.lists(
    st.sampled_from(
        (Dimension.TEAM, Dimension.FEATURE, Dimension.MODEL, Dimension.OUTCOME, Dimension.TAG)
    ),
    max_size=2,
    unique=True,
)


@settings(
    max_examples=2_000 if FULL else 80,
    derandomize=not FULL,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    rows=ROWS,
    zone=st.sampled_from(sorted(TURNS)),
    bucket=st.sampled_from(Bucket),
    before=st.floats(0, 1),
    length=st.floats(0, 1),
    dimensions=DIMENSIONS,
    wanted=FILTERS,
    top=st.integers(1, 4),
)
@pytest.mark.timeout(1_200)
async def test_a_report_is_what_its_records_add_up_to(
    database, rows, zone, bucket, before, length, dimensions, wanted, top
) -> None:
    turn_ns = nanoseconds(datetime.fromisoformat(TURNS[zone]))
    length_ns = int(length * HOURS_MAX[bucket] * HOUR_NS)
    starts_ns = turn_ns - int(before * length_ns)
    ends_ns = starts_ns + length_ns
    organization_id = uuid4()
    made = [_record(organization_id, row, starts_ns, ends_ns, turn_ns) for row in rows]
    await store(database, *made, request(uuid4(), starts_ns, charge_nanos=7))
    tag = TAG if Dimension.TAG in dimensions else None
    question = Question(
        organization_id,
        starts_ns,
        ends_ns,
        calendar(starts_ns, ends_ns, ZoneInfo(zone), bucket),
        tuple(dimensions),
        tag,
        wanted,
        top,
    )
    report = await read(database, question)
    want = expected(made, starts_ns, ends_ns, ZoneInfo(zone), bucket, dimensions, tag, wanted, top)
    assert list(question.calendar.edges_ns) == want.edges_ns
    got = [
        (each.values, each.is_other, [asdict(point) for point in each.points])
        for each in report.series
    ]
    assert got == want.series
    for each in report.series:
        assert each.totals == sum(each.points, NOTHING)
    assert report.totals == sum((each.totals for each in report.series), NOTHING)


def _record(organization_id: UUID, row: dict[str, Any], starts_ns: int, ends_ns: int, turn_ns: int):
    fields = dict(row)
    at = fields.pop("at")
    edges = {"start": starts_ns, "last": ends_ns - 1, "end": ends_ns, "turn": turn_ns}
    at_ns = edges[at] if isinstance(at, str) else starts_ns + int(at * (ends_ns - starts_ns))
    return request(organization_id, at_ns, **fields)


async def read(database: Database, question: Question) -> Report:
    async with database.read() as session:
        return await read_report(session, question)


def question_about(organization_id: UUID, *dimensions: Dimension, **changes: Any) -> Question:
    asked = Question(
        organization_id,
        0,
        24 * HOUR_NS,
        calendar(0, 24 * HOUR_NS, ZoneInfo("UTC"), Bucket.DAY),
        dimensions,
        None,
        RequestFilter(),
        10,
    )
    return replace(asked, **changes)


async def test_a_report_takes_one_statement(database) -> None:
    organization_id = uuid4()
    await store(database, *(request(organization_id, 1, feature=str(n)) for n in range(30)))
    with counted(database) as statements:
        for top in (1, 50):
            await read(database, question_about(organization_id, Dimension.FEATURE, top=top))
    assert len(statements) == 2


@pytest.mark.parametrize("dimension", list(Dimension))
async def test_each_dimension_tells_its_values_apart(database, dimension) -> None:
    organization_id, ids = uuid4(), (UUID(int=1), UUID(int=2))
    names = {"TEAM": "team_id", "MEMBER": "member_id", "KEY": "key_id"}
    names |= {"COST_CENTER": "cost_center_id", "MODEL": "served_model", "OUTCOME": "decision"}
    column = names.get(dimension.name, dimension.value)
    values: tuple[Any, ...] = ids if column.endswith("_id") else ("a", "b")
    records = [
        request(
            organization_id, 1, **({"tags": {"t": each}} if column == "tag" else {column: each})
        )
        for each in (values[0], values[1], values[1])
    ]
    await store(database, *records)
    tag = "t" if dimension is Dimension.TAG else None
    report = await read(database, question_about(organization_id, dimension, tag=tag))
    counts = [(each.values, each.totals.requests) for each in report.series]
    assert counts == [((values[1],), 2), ((values[0],), 1)]


async def test_more_money_than_64_bits_hold_is_still_ranked_and_added_up(database) -> None:
    organization_id = uuid4()
    amounts = {"a": [INTEGER_MAX] * 3, "b": [INTEGER_MAX, INTEGER_MAX, INTEGER_MAX - 1], "c": [-5]}
    await store(
        database,
        *(
            request(organization_id, 1, feature=name, charge_nanos=nanos, input_tokens=INTEGER_MAX)
            for name, charges in amounts.items()
            for nanos in charges
        ),
    )
    report = await read(database, question_about(organization_id, Dimension.FEATURE))
    assert [(each.values, each.totals.cost_nanos) for each in report.series] == [
        (("a",), 3 * INTEGER_MAX),
        (("b",), 3 * INTEGER_MAX - 1),
        (("c",), -5),
    ]
    assert report.totals == Totals(6 * INTEGER_MAX - 6, 7, 0, 0, 7 * INTEGER_MAX, 0, 0)


async def test_the_rest_is_one_series_and_only_when_there_is_a_rest(database) -> None:
    organization_id = uuid4()
    rows = [request(organization_id, 1, feature=str(n), charge_nanos=n) for n in range(5)]
    await store(database, *rows)
    whole = await read(database, question_about(organization_id, Dimension.FEATURE, top=5))
    assert (len(whole.series), whole.truncated) == (5, False)
    cut = await read(database, question_about(organization_id, Dimension.FEATURE, top=4))
    assert (len(cut.series), cut.truncated) == (5, True)
    assert (cut.series[-1].values, cut.series[-1].totals.requests) == ((), 1)
    assert cut.totals == whole.totals == Totals(cost_nanos=10, requests=5)


async def test_nothing_asked_about_is_nothing_found(database) -> None:
    organization_id = uuid4()
    for question in (
        question_about(organization_id),
        question_about(organization_id, Dimension.TEAM, Dimension.MODEL),
    ):
        assert await read(database, question) == empty_report(question)
    assert empty_report(question_about(organization_id)).series[0].points == (NOTHING,)
