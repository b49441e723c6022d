"""The limits engine as Python sees it: types, figures, and the mapping of its errors."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from uuid import UUID

import pytest

from core_rs import Admission, Engine, EngineError, Principal, Refusal

NOON_NS = 1_767_268_800_000_000_000
DAY_NS = 86_400_000_000_000
ORGANIZATION, TEAM, MEMBER, KEY, LIMIT = (str(UUID(int=number)) for number in range(1, 6))
SECRET = hashlib.sha256(b"secret").digest()


def limit(cap: int, **changes: object) -> dict[str, object]:
    """A daily hard budget of the key, unless changed."""
    return {
        "id": LIMIT,
        "kind": "budget",
        "scope": {"kind": "key", "id": KEY},
        "where": None,
        "resource": "spend",
        "window": {"kind": "calendar", "period": "day", "time_zone": "UTC"},
        "cap": cap,
        "mode": "hard",
        "hold": "bound",
    } | changes


def snapshot(*limits: dict[str, object], **changes: object) -> bytes:
    policy = {
        "organization_id": ORGANIZATION,
        "state": "active",
        "currency": "USD",
        "version": "v1",
        "limits": limits,
        "models": [],
    }
    return json.dumps(policy | changes).encode()


def key(**changes: object) -> bytes:
    record = {
        "id": KEY,
        "organization_id": ORGANIZATION,
        "team_id": TEAM,
        "member_id": None,
        "state": "active",
        "expires_at_ns": None,
        "secrets": [{"digest": SECRET.hex(), "expires_at_ns": None}],
    }
    return json.dumps([record | changes]).encode()


def name(number: int) -> bytes:
    return number.to_bytes(16, "big")


def admit(engine: Engine, number: int, spend: int, at_ns: int = 0) -> Admission | Refusal:
    return engine.admit(0, name(number), spend, 10, "gpt-4o", "openai", NOON_NS + at_ns, at_ns)


@pytest.fixture
def engine() -> Engine:
    made = Engine()
    made.load_organization(snapshot(limit(100)), b"[]", NOON_NS, 0)
    assert made.load_keys(key()) == 1
    return made


def state(engine: Engine, at_ns: int = 0) -> dict[str, object]:
    states = json.loads(engine.limit_states(ORGANIZATION, NOON_NS + at_ns, at_ns))
    assert len(states) == 1
    return dict(states[0])


def test_a_secret_names_its_principal(engine: Engine) -> None:
    found = engine.authenticate(SECRET, NOON_NS)
    assert isinstance(found, Principal)
    assert (found.key_id, found.organization_id) == (KEY, ORGANIZATION)
    assert (found.team_id, found.member_id) == (TEAM, None)
    assert (found.state, found.organization_state) == ("active", "active")
    assert found.policy_version == "v1"
    assert found.organization == engine.organization_index(ORGANIZATION)
    assert engine.authenticate(hashlib.sha256(b"other").digest(), NOON_NS) is None


def test_an_admission_tells_what_is_held_and_what_is_left(engine: Engine) -> None:
    rate = limit(5, id=MEMBER, kind="rate", resource="requests")
    rate["window"] = {"kind": "rolling", "seconds": 60}
    engine.load_organization(snapshot(limit(100), rate), b"[]", NOON_NS, 0)
    admission = admit(engine, 1, 30)
    assert isinstance(admission, Admission)
    assert (admission.spend_nanos, admission.tokens, admission.policy_version) == (30, 10, "v1")
    assert admission.remaining_spend_nanos == 70
    assert (admission.requests_limit, admission.requests_remaining) == (5, 4)
    assert admission.requests_reset_ns == 61_000_000_000
    figures = (admission.tokens_limit, admission.tokens_remaining, admission.tokens_reset_ns)
    assert figures == (None, None, None)
    assert json.loads(admission.seen_json()) == [
        {"limit_id": LIMIT, "used": 0, "held": 0, "cap": 100},
        {"limit_id": MEMBER, "used": 0, "held": 0, "cap": 5},
    ]


def test_a_preview_is_the_decision_without_its_effect(engine: Engine) -> None:
    admit(engine, 1, 60)
    before = state(engine)
    allowed = engine.preview(0, 40, 10, "gpt-4o", "openai", NOON_NS, 0)
    refused = engine.preview(0, 41, 10, "gpt-4o", "openai", NOON_NS, 0)
    assert isinstance(allowed, Admission)
    assert (allowed.spend_nanos, allowed.remaining_spend_nanos) == (40, 0)
    assert isinstance(refused, Refusal)
    assert (refused.limit_id, refused.held, refused.requested) == (LIMIT, 60, 41)
    assert state(engine) == before
    assert engine.open_reservations(ORGANIZATION) == 1


def test_decisions_name_the_owners_they_were_made_for(engine: Engine) -> None:
    center = str(UUID(int=77))
    engine.load_keys(key(member_id=MEMBER, cost_center_id=center))
    found = engine.authenticate(SECRET, NOON_NS)
    engine.load_keys(key(team_id=None, member_id=MEMBER, cost_center_id=None))
    decisions = [admit(engine, 1, 100), admit(engine, 2, 1)]
    assert [type(decision) for decision in decisions] == [Admission, Refusal]
    assert found is not None
    assert (found.team_id, found.member_id, found.cost_center_id) == (TEAM, MEMBER, center)
    for made in decisions:
        assert (made.team_id, made.member_id, made.cost_center_id) == (None, MEMBER, None)


def test_the_limits_of_a_key_are_those_of_its_path(engine: Engine) -> None:
    other = limit(7, id=MEMBER, scope={"kind": "key", "id": MEMBER})
    engine.load_organization(snapshot(limit(100), other), b"[]", NOON_NS, 0)
    admit(engine, 1, 60)
    found = engine.key_limits(0, NOON_NS, 0)
    assert (found.team_id, found.member_id, found.policy_version) == (TEAM, None, "v1")
    [one] = json.loads(found.states_json())
    assert (one["limit_id"], one["used"], one["held"]) == (LIMIT, 0, 60)
    with pytest.raises(EngineError) as failure:
        engine.key_limits(1, NOON_NS, 0)
    assert failure.value.code == "unknown_key"


def test_a_refusal_names_the_limit_with_its_figures_and_changes_nothing(engine: Engine) -> None:
    admit(engine, 1, 60)
    organization = engine.organization_index(ORGANIZATION)
    engine.settle(organization, name(1), 60, 10, NOON_NS, 0)
    refusal = admit(engine, 2, 41, at_ns=7)
    assert isinstance(refusal, Refusal)
    assert (refusal.code, refusal.status, refusal.kind) == ("key_budget_exceeded", 402, "budget")
    assert (refusal.scope_kind, refusal.scope_id, refusal.limit_id) == ("key", KEY, LIMIT)
    assert (refusal.resource, refusal.window) == ("spend", "calendar_day")
    assert (refusal.time_zone, refusal.mode) == ("UTC", "hard")
    assert (refusal.cap, refusal.used, refusal.held, refusal.requested) == (100, 60, 0, 41)
    assert refusal.waits_for == "period"
    assert refusal.frees_at_wall_ns == NOON_NS + DAY_NS // 2
    assert refusal.retry_after_ns == DAY_NS // 2 - 7
    assert refusal.policy_version == "v1"
    seen = [{"limit_id": LIMIT, "used": 60, "held": 0, "cap": 100}]
    assert json.loads(refusal.seen_json()) == seen
    assert engine.open_reservations(ORGANIZATION) == 0


def test_a_key_that_may_not_be_used_is_refused_without_figures(engine: Engine) -> None:
    engine.load_keys(key(state="disabled"))
    found = engine.authenticate(SECRET, NOON_NS)
    assert found is not None
    assert found.state == "disabled"
    refusal = admit(engine, 1, 1)
    assert isinstance(refusal, Refusal)
    assert (refusal.code, refusal.status, refusal.kind) == ("key_disabled", 403, "key")
    assert (refusal.scope_kind, refusal.scope_id) == ("key", KEY)
    assert (refusal.limit_id, refusal.cap, refusal.waits_for, refusal.window) == (None,) * 4
    engine.load_keys(key(state="revoked"))
    assert engine.authenticate(SECRET, NOON_NS) is None
    refusal = admit(engine, 1, 1)
    assert isinstance(refusal, Refusal)
    assert (refusal.code, refusal.status) == ("invalid_api_key", 401)


def test_a_suspended_organization_is_refused(engine: Engine) -> None:
    engine.load_organization(snapshot(state="suspended", version="v2"), b"[]", NOON_NS, 0)
    refusal = admit(engine, 1, 1)
    assert isinstance(refusal, Refusal)
    assert (refusal.code, refusal.status) == ("organization_suspended", 403)
    assert (refusal.kind, refusal.policy_version) == ("organization", "v2")


def test_a_model_is_refused_by_the_scope_that_does_not_list_it(engine: Engine) -> None:
    assert engine.model_refused_by(0, "gpt-4o") is None
    models = [{"scope": {"kind": "team", "id": TEAM}, "allow": ["gpt-4o-mini"]}]
    engine.load_organization(snapshot(models=models), b"[]", NOON_NS, 0)
    assert engine.model_refused_by(0, "gpt-4o") == "team"
    assert engine.model_refused_by(0, "gpt-4o-mini") is None


def test_a_lowered_budget_binds_the_next_request(engine: Engine) -> None:
    assert isinstance(admit(engine, 1, 60), Admission)
    engine.load_organization(snapshot(limit(60)), b"[]", NOON_NS, 0)
    assert isinstance(admit(engine, 2, 1), Refusal)


def test_a_reservation_grows_accrues_and_settles_once(engine: Engine) -> None:
    organization = engine.organization_index(ORGANIZATION)
    admit(engine, 1, 60)
    assert engine.extend(organization, name(1), 40, 0, NOON_NS, 0) is None
    refusal = engine.extend(organization, name(1), 1, 0, NOON_NS, 0)
    assert isinstance(refusal, Refusal)
    assert refusal.waits_for == "open_requests"
    engine.progress(organization, name(1), 25, 5, NOON_NS, 0)
    now = state(engine)
    assert (now["settled"], now["used"], now["held"]) == (0, 25, 75)
    done = engine.settle(organization, name(1), 130, 5, NOON_NS, 0)
    assert (done.first, done.seq, done.spend_nanos, done.tokens) == (True, 1, 130, 5)
    assert (done.overrun_nanos, done.exceeded) == (30, [LIMIT])
    again = engine.settle(organization, name(1), 1, 1, NOON_NS, 0)
    assert (again.first, again.seq, again.spend_nanos) == (False, 1, 130)
    now = state(engine)
    assert (now["settled"], now["used"], now["held"]) == (130, 130, 0)


def test_a_counter_starts_from_its_seed(engine: Engine) -> None:
    wanted = snapshot(limit(100), limit(100, id=TEAM, scope={"kind": "team", "id": TEAM}))
    missing = json.loads(engine.missing_counters(wanted, NOON_NS, 0))
    assert missing == [
        {
            "scope": {"kind": "team", "id": TEAM},
            "where": None,
            "resource": "spend",
            "window": {"kind": "calendar", "period": "day", "time_zone": "UTC"},
            "starts_at_ns": NOON_NS - DAY_NS // 2,
            "ends_at_ns": NOON_NS + DAY_NS // 2,
        }
    ]
    seeds = [missing[0] | {"entries": [[NOON_NS - 1, 70], [NOON_NS - DAY_NS, 900]]}]
    engine.load_organization(wanted, json.dumps(seeds).encode(), NOON_NS, 0)
    refusal = admit(engine, 1, 31)
    assert isinstance(refusal, Refusal)
    assert (refusal.code, refusal.used) == ("team_budget_exceeded", 70)


def test_an_outcome_is_forgotten_when_the_ledger_has_it(engine: Engine) -> None:
    organization = engine.organization_index(ORGANIZATION)
    admit(engine, 1, 1)
    done = engine.settle(organization, name(1), 1, 1, NOON_NS, 0)
    engine.booked_through(organization, done.seq)
    with pytest.raises(EngineError) as failure:
        engine.settle(organization, name(1), 1, 1, NOON_NS, 0)
    assert failure.value.code == "unknown_reservation"


def test_a_release_is_as_if_nothing_had_been(engine: Engine) -> None:
    organization = engine.organization_index(ORGANIZATION)
    before = state(engine)
    admit(engine, 1, 60)
    assert engine.release(organization, name(1), NOON_NS, 0)
    assert not engine.release(organization, name(1), NOON_NS, 0)
    assert state(engine) == before


FAULTS: list[tuple[str, Callable[[Engine], object]]] = [
    ("invalid_argument", lambda engine: engine.authenticate(b"short", 0)),
    ("invalid_argument", lambda engine: engine.settle(0, b"short", 0, 0, 0, 0)),
    ("invalid_argument", lambda engine: admit(engine, 1, -1)),
    ("invalid_argument", lambda engine: engine.booked_through(0, 1)),
    ("invalid_json", lambda engine: engine.load_keys(b"{")),
    ("invalid_json", lambda engine: engine.load_organization(b"{}", b"[]", 0, 0)),
    (
        "invalid_keys",
        lambda engine: engine.load_keys(key(secrets=[{"digest": "00", "expires_at_ns": None}])),
    ),
    ("invalid_policy", lambda engine: engine.missing_counters(snapshot(limit(-1)), 0, 0)),
    ("unknown_key", lambda engine: engine.model_refused_by(1, "gpt-4o")),
    ("unknown_organization", lambda engine: engine.open_reservations(TEAM)),
    ("unknown_organization", lambda engine: engine.open_reservations("no id")),
    ("unknown_reservation", lambda engine: engine.release(0, name(9), 0, 0)),
    ("already_released", lambda engine: engine.settle(0, name(7), 0, 0, 0, 0)),
    ("duplicate_reservation", lambda engine: admit(engine, 7, 0)),
]


@pytest.mark.parametrize(("code", "call"), FAULTS)
def test_a_fault_is_raised_with_its_code_and_changes_nothing(
    engine: Engine, code: str, call: Callable[[Engine], object]
) -> None:
    admit(engine, 7, 0)
    engine.release(0, name(7), NOON_NS, 0)
    before = state(engine)
    with pytest.raises(EngineError) as failure:
        call(engine)
    assert failure.value.code == code
    assert str(failure.value)
    assert state(engine) == before


def test_integers_that_no_word_holds_are_refused(engine: Engine) -> None:
    with pytest.raises(OverflowError):
        admit(engine, 1, 2**63)
    assert engine.open_reservations(ORGANIZATION) == 0
