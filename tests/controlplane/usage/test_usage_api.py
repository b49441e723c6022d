"""Reports and totals in the API: what they say, to whom, and what they refuse."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import pytest

from controlplane.api.nodes import NodeKind, global_id
from controlplane.keys.service import NewKey, create_key
from controlplane.tenancy.models import CostCenter
from controlplane.usage.report.graphql import POINTS_MAX, TOP_MAX
from tests.controlplane.conftest import member_id
from tests.controlplane.usage.records import counted, request, store

HOUR_NS = 3_600_000_000_000
# The clock of these tests says 2026-03-14T09:26:53Z; in Berlin it is 10:26:53.
NOW_NS = 1_773_480_413_000_000_000
TODAY = {"from": "2026-03-14T00:00:00+01:00"}

REPORT = """query($range: TimeRange!, $bucket: Bucket! = DAY, $by: [UsageDimension!]! = [],
    $tag: String, $filter: UsageFilter, $top: Int! = 10) { organization(slug: "acme") {
  usage(range: $range, bucket: $bucket, groupBy: $by, tag: $tag, filter: $filter, top: $top) {
    range { from to timezone } bucket truncated asOf
    totals { cost requests blocked failed inputTokens outputTokens cachedTokens }
    series { isOther totals { cost requests } dimensions { dimension key label node { id } }
      points { start end cost requests blocked failed inputTokens outputTokens cachedTokens } } } } }"""

SPEND = """query($range: TimeRange!) { organization(slug: "acme") {
  spend(range: $range) { cost requests blocked failed }
  teams { nodes { name spend(range: $range) { cost } } }
  members { nodes { user { email } spend(range: $range) { cost } } }
  keys { nodes { name lastUsedAt spend(range: $range) { cost } } } } }"""


async def report(api, caller, **variables: Any) -> dict[str, Any]:
    answer = await api.ask(await api.token(caller), REPORT, **({"range": TODAY} | variables))
    return answer["organization"]["usage"]


async def refusal(api, caller, **variables: Any) -> tuple[str, str]:
    response = await api.post(await api.token(caller), REPORT, **({"range": TODAY} | variables))
    [error] = response.json()["errors"]
    return error["extensions"]["code"], error["message"]


def labels(found: dict[str, Any]) -> list[tuple[list[str], str]]:
    return [
        ([each["label"] for each in series["dimensions"]], series["totals"]["cost"])
        for series in found["series"]
    ]


async def test_a_report_says_everything_about_its_requests(api, org, by, database) -> None:
    await store(
        database,
        by("member", at_ns=NOW_NS - HOUR_NS, charge_nanos=1_500_000_000, input_tokens=10,
           output_tokens=4, cached_tokens=3),
        by("member", at_ns=NOW_NS - 1, charge_nanos=1, decision="failed"),
        by("other_member", at_ns=NOW_NS - 1, decision="refused"),
        by("member", at_ns=NOW_NS, charge_nanos=7),
    )  # fmt: skip
    found = await report(api, org.admin)
    totals = {"cost": "1.500000001", "requests": "3", "blocked": "1", "failed": "1",
              "inputTokens": "10", "outputTokens": "4", "cachedTokens": "3"}  # fmt: skip
    point = {"start": "2026-03-13T23:00:00Z", "end": "2026-03-14T23:00:00Z", **totals}
    assert found == {
        "range": {
            "from": "2026-03-13T23:00:00Z",
            "to": "2026-03-14T09:26:53Z",
            "timezone": "Europe/Berlin",
        },
        "bucket": "DAY",
        "truncated": False,
        "asOf": "2026-03-14T09:26:53Z",
        "totals": totals,
        "series": [
            {
                "isOther": False,
                "totals": {"cost": "1.500000001", "requests": "3"},
                "dimensions": [],
                "points": [point],
            }
        ],
    }


async def test_groups_are_called_by_name_and_the_rest_is_other(
    api, org, keys, by, database, work_as
) -> None:
    await store(
        database,
        by("member", at_ns=NOW_NS - 1, charge_nanos=3_000_000_000, feature="chat"),
        by("other_member", at_ns=NOW_NS - 1, charge_nanos=2_000_000_000),
        request(org.id, NOW_NS - 1, charge_nanos=1_000_000_000),
    )
    by_key = await report(api, org.admin, by=["KEY", "FEATURE"], top=2)
    assert labels(by_key) == [
        (["mine", "chat"], "3.00"),
        (["other", "(none)"], "2.00"),
        ([], "1.00"),
    ]
    assert [each["isOther"] for each in by_key["series"]] == [False, False, True]
    assert by_key["truncated"] is True
    key = global_id(NodeKind.KEY, org.id, keys.mine)
    assert by_key["series"][0]["dimensions"] == [
        {"dimension": "KEY", "key": key, "label": "mine", "node": {"id": key}},
        {"dimension": "FEATURE", "key": "chat", "label": "chat", "node": None},
    ]
    by_team = await report(api, org.admin, by=["TEAM"])
    assert labels(by_team) == [(["Red"], "3.00"), (["Blue"], "2.00"), (["(none)"], "1.00")]
    assert by_team["series"][2]["dimensions"][0]["key"] is None
    by_member = await report(api, org.admin, by=["MEMBER"])
    assert labels(by_member)[0] == (["member@acme.example"], "3.00")
    unknown = await report(api, org.admin, by=["KEY"])
    assert unknown["series"][2]["dimensions"][0]["label"] == "(deleted)"


async def test_an_hour_that_is_repeated_is_two_points(api, org) -> None:
    night = {"from": "2025-10-26T01:00:00+02:00", "to": "2025-10-26T04:00:00+01:00"}
    [series] = (await report(api, org.admin, range=night, bucket="HOUR"))["series"]
    assert [each["start"][11:16] for each in series["points"]] == [
        "23:00", "00:00", "01:00", "02:00",
    ]  # fmt: skip
    elsewhere = {**night, "timezone": "Asia/Kathmandu"}
    found = await report(api, org.admin, range=elsewhere, bucket="HOUR")
    assert found["range"]["timezone"] == "Asia/Kathmandu"
    assert found["series"][0]["points"][0]["start"] == "2025-10-25T22:15:00Z"


async def test_a_tag_is_a_dimension_and_a_filter(api, org, by, database) -> None:
    await store(
        database,
        by("member", at_ns=NOW_NS - 1, charge_nanos=2_000_000_000, tags={"job": "a"}),
        by("member", at_ns=NOW_NS - 1, charge_nanos=1_000_000_000, tags={"job": "b", "x": "y"}),
        by("member", at_ns=NOW_NS - 1, tags={"x": "y"}),
    )
    found = await report(api, org.admin, by=["TAG"], tag="job")
    assert labels(found) == [(["a"], "2.00"), (["b"], "1.00"), (["(none)"], "0.00")]
    wanted = {"tags": [{"name": "x", "value": "y"}], "outcomes": ["ALLOWED"]}
    assert labels(await report(api, org.admin, by=["TAG"], tag="job", filter=wanted)) == [
        (["b"], "1.00"),
        (["(none)"], "0.00"),
    ]


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"by": ["TEAM", "KEY", "MODEL"]}, "Group by at most 2"),
        ({"by": ["TEAM", "TEAM"]}, "Group by at most 2"),
        ({"by": ["TAG"]}, "name the tag"),
        ({"tag": "job"}, "name the tag"),
        ({"by": ["TAG"], "tag": "\0"}, "U+0000"),
        ({"by": ["TEAM"], "top": 0}, "from 1 to 50"),
        ({"by": ["TEAM"], "top": TOP_MAX + 1}, "from 1 to 50"),
        ({"range": {"from": "2026-03-14T10:00:00Z"}}, "ends before it starts"),
        ({"range": {"from": "1969-12-31T23:59:59Z"}}, "years 1970 and 2261"),
        ({"range": {"from": "2026-01-01T00:00:00Z", "to": "2250-12-31T23:59:59Z"}}, "from 1970 to 2199"),
        ({"range": {**TODAY, "timezone": "Europe/Atlantis"}}, "time zone"),
        ({"range": {**TODAY, "timezone": "localtime"}}, "time zone"),
        ({"range": {**TODAY, "timezone": "../../etc/passwd"}}, "time zone"),
        ({"range": {"from": "2026-03-13T08:00:00Z"}, "bucket": "MINUTE"}, "longer bucket"),
        ({"range": {"from": "2010-01-01T00:00:00Z"}, "bucket": "MONTH"}, "shorter range"),
        ({"range": {"from": "2026-02-14T00:00:00Z"}, "bucket": "HOUR", "by": ["KEY"], "top": 50},
         "Ask for a longer bucket"),
        ({"filter": {"agents": ["x"] * 101}}, "`agents` takes at most 100"),
        ({"filter": {"tags": [{"name": "x", "value": "y"}] * 101}}, "`tags` takes at most 100"),
    ],
)  # fmt: skip
async def test_what_cannot_be_reported_is_refused(api, org, database, variables, message) -> None:
    with counted(database) as statements:
        code, said = await refusal(api, org.admin, **variables)
    assert (code, message in said) == ("BAD_USER_INPUT", True), said
    assert [each for each in statements if "decision_records" in each] == []


async def test_the_largest_questions_are_answered(api, org) -> None:
    assert POINTS_MAX // (TOP_MAX + 1) == 196
    # 196 days, one point for each of 51 series.
    half_a_year = {"from": "2025-08-31T00:00:00Z", "to": "2026-03-15T00:00:00Z", "timezone": "UTC"}
    wanted = {"agents": ["x"] * 100, "tags": [{"name": "x", "value": "y"}] * 100}
    question = {"by": ["TEAM", "MODEL"], "top": TOP_MAX, "filter": wanted}
    assert (await report(api, org.admin, range=half_a_year, **question))["series"] == []
    one_more = {**half_a_year, "from": "2025-08-30T23:59:59.999999Z"}
    assert (await refusal(api, org.admin, range=one_more, **question))[0] == "BAD_USER_INPUT"
    a_day = {"from": "2026-03-13T09:26:00Z", "timezone": "UTC"}
    [series] = (await report(api, org.admin, range=a_day, bucket="MINUTE"))["series"]
    assert len(series["points"]) == 1_441


@pytest.mark.parametrize(
    ("field", "kind"),
    [
        ("teamIds", NodeKind.TEAM),
        ("memberIds", NodeKind.MEMBER),
        ("keyIds", NodeKind.KEY),
        ("costCenterIds", NodeKind.COST_CENTER),
    ],
)
async def test_a_foreign_id_in_a_filter_is_not_found(api, org, foreign, field, kind) -> None:
    for name in (
        global_id(kind, foreign.id, foreign.team),
        "x",
        global_id(NodeKind.BUDGET, org.id, org.id),
    ):
        assert (await refusal(api, org.admin, filter={field: [name]}))[0] == "NOT_FOUND"


async def test_a_forged_id_of_a_foreign_object_finds_nothing(api, org, foreign, database) -> None:
    await store(database, request(foreign.id, NOW_NS - 1, charge_nanos=5, team_id=foreign.team))
    forged = global_id(NodeKind.TEAM, org.id, foreign.team)
    found = await report(api, org.admin, filter={"teamIds": [forged]})
    assert found["totals"]["requests"] == "0"


async def test_each_role_adds_up_what_it_may_see(api, org, foreign, keys, by, database) -> None:
    await store(
        database,
        by("member", at_ns=NOW_NS - 2, charge_nanos=1_000_000_000),
        request(org.id, NOW_NS - 2, charge_nanos=2_000_000_000, team_id=org.team),
        by("other_member", at_ns=NOW_NS - 2, charge_nanos=4_000_000_000),
        request(foreign.id, NOW_NS - 2, charge_nanos=8_000_000_000),
    )
    want = {
        "admin": "7.00",
        "billing_viewer": "7.00",
        "team_admin": "3.00",
        "member": "1.00",
        "other_member": "4.00",
    }
    for name, cost in want.items():
        caller = org.callers()[name]
        assert (await report(api, caller))["totals"]["cost"] == cost
        answer = (await api.ask(await api.token(caller), SPEND, range=TODAY))["organization"]
        assert answer["spend"]["cost"] == cost
    found = await report(
        api, org.member, filter={"teamIds": [global_id(NodeKind.TEAM, org.id, org.other_team)]}
    )
    assert found["totals"]["requests"] == "0"
    other = {"memberIds": [global_id(NodeKind.MEMBER, org.id, member_id(org.other_member))]}
    assert (await report(api, org.member, filter=other))["totals"]["requests"] == "0"
    operator = await api.ask(await api.operator_token(), SPEND, range=TODAY)
    assert operator["organization"]["spend"]["cost"] == "7.00"
    stranger = await api.ask(await api.token(foreign.admin), SPEND, range=TODAY)
    assert stranger == {"organization": None}


async def test_a_member_sees_no_object_that_is_not_its_own(api, org, by, database) -> None:
    await store(database, by("member", at_ns=NOW_NS - 1))
    found = await report(api, org.member, by=["TEAM", "MEMBER"])
    nodes = [each["node"] for each in found["series"][0]["dimensions"]]
    assert all(nodes)
    moved = by("member", at_ns=NOW_NS - 1, team_id=org.other_team)
    await store(database, moved)
    found = await report(api, org.member, by=["TEAM"])
    assert {(each["dimensions"][0]["label"], bool(each["dimensions"][0]["node"])) for each in found["series"]} == {
        ("Red", True),
        ("Blue", False),
    }  # fmt: skip


async def test_everything_that_spends_has_its_totals(api, org, keys, by, database) -> None:
    await store(
        database,
        by("member", at_ns=NOW_NS - HOUR_NS, charge_nanos=1_000_000_000),
        by("member", at_ns=NOW_NS - 24 * HOUR_NS, charge_nanos=5_000_000_000),
        by("other_member", at_ns=NOW_NS - 1, charge_nanos=2_000_000_000, decision="failed"),
        by("other_member", at_ns=NOW_NS - 5 * HOUR_NS, decision="refused"),
        by("other_member", at_ns=NOW_NS, charge_nanos=9_000_000_000),
    )
    found = (await api.ask(await api.token(org.admin), SPEND, range=TODAY))["organization"]
    assert found["spend"] == {"cost": "3.00", "requests": "3", "blocked": "1", "failed": "1"}
    assert {each["name"]: each["spend"]["cost"] for each in found["teams"]["nodes"]} == {
        "Red": "1.00",
        "Blue": "2.00",
    }
    members = {each["user"]["email"]: each["spend"]["cost"] for each in found["members"]["nodes"]}
    assert members["member@acme.example"] == "1.00"
    assert members["other@acme.example"] == "2.00"
    assert members["lead@acme.example"] == "0.00"
    assert {each["name"]: (each["spend"]["cost"], each["lastUsedAt"]) for each in found["keys"]["nodes"]} == {
        "mine": ("1.00", "2026-03-14T08:26:53Z"),
        "other": ("2.00", "2026-03-14T09:26:53Z"),
    }  # fmt: skip


async def test_a_key_that_was_never_used_says_so(api, org, keys) -> None:
    found = (await api.ask(await api.token(org.admin), SPEND, range=TODAY))["organization"]
    assert [each["lastUsedAt"] for each in found["keys"]["nodes"]] == [None, None]


async def test_a_longer_list_of_totals_takes_no_more_statements(
    api, org, keys, work_as, database
) -> None:
    async with work_as(org.admin) as work:
        for number in range(101):
            new = NewKey(f"key {number}", member_id=member_id(org.member), team_id=org.team)
            await create_key(work, org.id, new, idempotency_key=str(number))
    query = """query($first: Int!, $range: TimeRange!) { organization(slug: "acme") {
      keys(first: $first) { nodes { lastUsedAt spend(range: $range) { cost }
        owner { spend(range: $range) { cost } } team { spend(range: $range) { cost } } } } } }"""
    token, seen = await api.token(org.admin), []
    for first in (10, 100):
        with counted(database) as statements:
            answer = await api.ask(token, query, first=first, range=TODAY)
        assert len(answer["organization"]["keys"]["nodes"]) == first
        seen.append(len(statements))
    assert seen[0] == seen[1]


async def test_a_report_on_more_groups_takes_no_more_statements(
    api, org, work_as, database
) -> None:
    async with work_as(org.admin) as work:
        for number in range(60):
            new = NewKey(f"key {number}", member_id=member_id(org.member), team_id=org.team)
            key = (await create_key(work, org.id, new, idempotency_key=str(number))).key
            whose = {"key_id": key.id, "team_id": key.team_id, "member_id": key.member_id}
            work.session.add(request(org.id, NOW_NS - 1, charge_nanos=number, **whose))
    seen = []
    for top in (2, 50):
        with counted(database) as statements:
            found = await report(api, org.admin, by=["KEY", "MEMBER"], top=top)
        assert len(found["series"]) == top + 1
        seen.append(len(statements))
    assert seen[0] == seen[1]


async def test_a_range_that_is_empty_adds_up_to_nothing(api, org, by, database) -> None:
    await store(database, by("member", at_ns=NOW_NS))
    empty = {"from": "2026-03-14T09:26:53Z"}
    found = await report(api, org.admin, range=empty)
    assert (found["totals"]["requests"], found["series"][0]["points"]) == ("0", [])
    answer = await api.ask(await api.token(org.admin), SPEND, range=empty)
    assert answer["organization"]["spend"]["requests"] == "0"


async def test_a_cost_center_is_called_by_code_and_name(api, org, by, database, work_as) -> None:
    center = CostCenter(id=uuid4(), organization_id=org.id, code="R-1", name="Research")
    async with work_as(org.admin) as work:
        center.created_at = work.now
        work.session.add(center)
    await store(database, by("member", at_ns=NOW_NS - 1, cost_center_id=center.id))
    [series] = (await report(api, org.admin, by=["COST_CENTER"]))["series"]
    name = global_id(NodeKind.COST_CENTER, org.id, center.id)
    assert series["dimensions"] == [
        {"dimension": "COST_CENTER", "key": name, "label": "R-1 Research", "node": None}
    ]
    wanted = {"costCenterIds": [name]}
    assert (await report(api, org.admin, filter=wanted))["totals"]["requests"] == "1"
