"""Buckets of points: exact, never negative, and true about when to come back."""

from __future__ import annotations

from datetime import UTC, datetime
from fractions import Fraction
from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.api import points
from controlplane.api.documents import is_remembered
from controlplane.api.limiter import POINTS_MAX
from controlplane.api.nodes import NodeKind, global_id
from controlplane.api.operation import CHARACTERS_PER_POINT
from controlplane.api.points import PointBuckets
from controlplane.clock import ManualClock
from controlplane.settings import ControlSettings, SettingsError, read_settings

START = datetime(2026, 3, 14, 9, 26, 53, tzinfo=UTC)
SECOND_NS = 1_000_000_000
CALLERS = [UUID(int=number) for number in range(3)]
STEPS = st.lists(
    st.tuples(st.sampled_from(CALLERS), st.integers(0, 100), st.integers(0, 40 * SECOND_NS)),
    max_size=30,
)


def made(limit: int = 100, rate: int = 7) -> tuple[ManualClock, PointBuckets]:
    clock = ManualClock(START)
    return clock, PointBuckets(clock, points_max=limit, restore_per_s=rate)


@given(st.integers(1, 13), STEPS)
def test_a_bucket_holds_exactly_what_is_left(rate: int, steps: list) -> None:
    clock, buckets = made(rate=rate)
    full = Fraction(100)
    left = dict.fromkeys(CALLERS, full)
    for caller, cost, wait_ns in steps:
        charge = buckets.take(caller, cost)
        assert charge.is_paid is (cost <= left[caller])
        if charge.is_paid:
            left[caller] -= cost
        assert 0 <= left[caller] <= full
        # Points that are not whole yet cannot be used.
        assert charge.remaining == left[caller] // 1
        missing_ns = (full - left[caller]) / rate * SECOND_NS
        assert charge.resets_after_s == -(-missing_ns // SECOND_NS)
        clock.advance_ns(wait_ns)
        restored = Fraction(wait_ns * rate, SECOND_NS)
        left = {each: min(full, points + restored) for each, points in left.items()}


@given(st.integers(1, 13), st.integers(0, 100), st.integers(1, 100), st.integers(0, SECOND_NS))
def test_the_wait_is_true(rate: int, spent: int, cost: int, elapsed_ns: int) -> None:
    clock, buckets = made(rate=rate)
    buckets.take(CALLERS[0], spent)
    clock.advance_ns(elapsed_ns)
    refused = buckets.take(CALLERS[0], cost)
    if refused.is_paid:
        assert refused.wait_s == 0
        return
    clock.advance_ns((refused.wait_s - 1) * SECOND_NS)
    assert not buckets.take(CALLERS[0], cost).is_paid
    clock.advance_ns(SECOND_NS)
    assert buckets.take(CALLERS[0], cost).is_paid


def test_a_refused_operation_takes_nothing() -> None:
    clock, buckets = made(limit=100, rate=10)
    assert buckets.take(CALLERS[0], 60).remaining == 40
    for _ in range(5):
        refused = buckets.take(CALLERS[0], 41)
        assert (refused.is_paid, refused.remaining, refused.wait_s) == (False, 40, 1)
    assert buckets.take(CALLERS[0], 40).remaining == 0
    clock.advance_ns(SECOND_NS)
    assert buckets.take(CALLERS[0], 0).remaining == 10


def test_a_bucket_is_never_more_than_full() -> None:
    clock, buckets = made(limit=100, rate=10)
    buckets.take(CALLERS[0], 1)
    clock.advance_ns(10**18)
    assert buckets.take(CALLERS[0], 100).is_paid
    assert not buckets.take(CALLERS[0], 1).is_paid


def test_callers_do_not_share_a_bucket() -> None:
    _, buckets = made()
    buckets.take(CALLERS[0], 100)
    assert buckets.take(CALLERS[1], 100).is_paid


def test_a_wall_clock_that_jumps_restores_nothing() -> None:
    clock, buckets = made()
    buckets.take(CALLERS[0], 100)
    clock.jump_wall_ns(3600 * SECOND_NS)
    assert buckets.take(CALLERS[0], 1).remaining == 0


def test_the_callers_seen_last_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(points, "CALLERS_MAX", 3)
    _, buckets = made()
    first, *others = [uuid4() for _ in range(4)]
    for each in (first, *others[:2], first):
        buckets.take(each, 40)
    buckets.take(others[2], 40)
    # The one seen longest ago has been forgotten and begins anew.
    assert buckets.take(first, 0).remaining == 20
    assert len(buckets._buckets) == 3
    assert buckets.take(others[0], 0).remaining == 100
    assert len(buckets._buckets) == 3


def test_the_fields_are_written_as_the_draft_says() -> None:
    """draft-ietf-httpapi-ratelimit-headers-10: structured fields, lists of strings."""
    clock, buckets = made(limit=100, rate=7)
    clock.advance_ns(SECOND_NS // 2)
    paid = buckets.take(CALLERS[0], 30)
    assert paid.as_headers() == (
        ("ratelimit-policy", '"points";q=100;w=15'),
        ("ratelimit", '"points";r=70;t=5'),
    )
    refused = buckets.take(CALLERS[0], 90)
    assert refused.as_headers() == (*paid.as_headers(), ("retry-after", "3"))
    assert paid.as_extension() == {
        "requested": 30,
        "limit": 100,
        "remaining": 70,
        "restoreRate": 7,
        "resetAt": "2026-03-14T09:26:57.785714Z",
    }


COST = "{ rateLimit { cost limit remaining restoreRate resetAt } }"


async def test_field_extension_and_headers_agree(api, org, clock) -> None:
    token = await api.token(org.admin)
    await api.ask(token, "{ viewer { user { email } } }")
    response = await api.post(token, COST)
    body = response.json()
    told = body["data"]["rateLimit"]
    assert told == {
        "cost": 6,
        "limit": 100_000,
        "remaining": 100_000 - 3 - 6,
        "restoreRate": 2_000,
        "resetAt": "2026-03-14T09:26:53.004500Z",
    }
    cost = body["extensions"]["cost"]
    assert cost == {"requested": told.pop("cost")} | told
    assert response.headers["ratelimit-policy"] == '"points";q=100000;w=50'
    assert response.headers["ratelimit"] == '"points";r=99991;t=1'
    clock.advance_ns(SECOND_NS)
    assert (await api.ask(token, COST))["rateLimit"]["remaining"] == 100_000 - 6


PAGES = """query { organization(slug: "acme") {
  a: keys(first: 100) { nodes { owner { user { email name } } team { slug } } } } }"""
TEAM = """mutation($place: ID!) { teamCreate(input: {organizationId: $place, name: "Late"}) {
  team { slug } errors { code } } }"""


async def test_who_asks_too_much_is_told_when_to_come_back(api, org, clock, published) -> None:
    token = await api.token(org.admin)
    last = await api.post(token, PAGES)
    while last.status_code == 200:
        last = await api.post(token, PAGES)
    body = last.json()
    assert last.status_code == 429
    [error] = body["errors"]
    assert error["extensions"]["code"] == "RATE_LIMITED"
    assert error["extensions"]["requestId"] == last.headers["x-request-id"]
    assert "data" not in body
    assert body["extensions"]["cost"]["requested"] > body["extensions"]["cost"]["remaining"]
    assert f"r={body['extensions']['cost']['remaining']};" in last.headers["ratelimit"]
    clock.advance_ns((int(last.headers["retry-after"]) - 1) * SECOND_NS)
    assert (await api.post(token, PAGES)).status_code == 429
    clock.advance_ns(SECOND_NS)
    assert (await api.post(token, PAGES)).status_code == 200


async def test_a_change_that_cannot_be_paid_is_not_made(api, org, published) -> None:
    token = await api.token(org.admin)
    place = global_id(NodeKind.ORGANIZATION, org.id, org.id)
    api.plane.api._handler.desk.buckets.take(org.admin.user_id, 100_000)
    refused = await api.post(token, TEAM, place=place)
    assert (refused.status_code, published) == (429, [])
    found = await api.ask(
        await api.token(org.billing_viewer),
        '{ organization(slug: "acme") { teams { nodes { slug } } } }',
    )
    slugs = {each["slug"] for each in found["organization"]["teams"]["nodes"]}
    assert slugs == {"blue", "red"}


def test_the_largest_document_fits_into_the_smallest_bucket() -> None:
    """Else there would be operations that nobody may ever pay, and waits that are not true."""
    smallest = {"COMPTROLLER_DATA_DIR": "/tmp", "COMPTROLLER_API_POINTS_MAX": str(POINTS_MAX)}
    assert read_settings(ControlSettings, smallest).api_points_max == POINTS_MAX
    too_small = smallest | {"COMPTROLLER_API_POINTS_MAX": str(POINTS_MAX - 1)}
    with pytest.raises(SettingsError):
        read_settings(ControlSettings, too_small)


async def test_a_new_document_that_is_not_valid_is_paid_for_once(api, org) -> None:
    token = await api.token(org.admin)
    buckets = api.plane.api._handler.desk.buckets
    text = f"{{ nothing_{uuid4().hex} }} # {'x' * 2_000}"
    cost = 1 + len(text) // CHARACTERS_PER_POINT
    for _ in range(2):
        assert (await api.post(token, text)).status_code == 422
        assert buckets.look(org.admin.user_id, 0).remaining == 100_000 - cost
    buckets.take(org.admin.user_id, 100_000 - cost)
    other = f"{{ nothing_{uuid4().hex} }}"
    refused = await api.post(token, other)
    assert refused.status_code == 429
    assert refused.json()["errors"][0]["extensions"]["code"] == "RATE_LIMITED"
    assert not is_remembered(api.plane.api.desk.schema, other)


def test_looking_takes_nothing() -> None:
    _, buckets = made()
    buckets.take(CALLERS[0], 60)
    assert buckets.look(CALLERS[0], 40).is_paid
    assert not buckets.look(CALLERS[0], 41).is_paid
    assert buckets.take(CALLERS[0], 40).remaining == 0
