"""The limits engine as Python sees it: types, figures, and the mapping of its errors."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest

from core_rs import Admission, Ask, Diversion, Engine, EngineError, Principal, Refusal, Waiting

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
        "rules": [],
    }
    return json.dumps(policy | changes).encode()


def key(**changes: object) -> bytes:
    record = {
        "id": KEY,
        "organization_id": ORGANIZATION,
        "team_id": TEAM,
        "member_id": None,
        "pools": [],
        "state": "active",
        "expires_at_ns": None,
        "secrets": [{"digest": SECRET.hex(), "expires_at_ns": None}],
    }
    return json.dumps([record | changes]).encode()


def name(number: int) -> bytes:
    return number.to_bytes(16, "big")


def ask(spend: int, tokens: int = 10, **changes: Any) -> Ask:
    """Ask for a request that costs and uses so much at most, nothing of it for its input."""
    facts = {
        "model": "gpt-4o",
        "provider": "openai",
        "input_tokens": 0,
        "output_tokens_max": tokens,
        "bound_nanos": spend,
        "input_nanos": 0,
        "output_picos": -(-spend * 1000 // tokens),
    }
    return Ask(**(facts | changes))


def admit(
    engine: Engine, number: int, spend: int, at_ns: int = 0, **changes: Any
) -> Admission | Refusal | Waiting | Diversion:
    return engine.admit(0, name(number), ask(spend, **changes), NOON_NS + at_ns, at_ns)


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


def test_the_limits_of_a_scope_are_those_among_all(engine: Engine) -> None:
    own = limit(7, id=MEMBER, scope={"kind": "organization", "id": ORGANIZATION})
    engine.load_organization(snapshot(limit(100), own), b"[]", NOON_NS, 0)
    admit(engine, 1, 5)
    every = json.loads(engine.limit_states(ORGANIZATION, NOON_NS, 0))
    assert len(every) == 2
    for each in every:
        scope = each["scope"]
        found = engine.scope_states(ORGANIZATION, scope["kind"], scope["id"], NOON_NS, 0)
        assert json.loads(found) == [each]
    assert engine.scope_states(ORGANIZATION, "member", MEMBER, NOON_NS, 0) == b"[]"
    for kind, name in (("planet", MEMBER), ("member", "x")):
        with pytest.raises(EngineError) as refused:
            engine.scope_states(ORGANIZATION, kind, name, NOON_NS, 0)
        assert refused.value.code == "invalid_argument"


def test_a_preview_is_the_decision_without_its_effect(engine: Engine) -> None:
    admit(engine, 1, 60)
    before = state(engine)
    allowed = engine.preview(0, ask(40), NOON_NS, 0)
    refused = engine.preview(0, ask(41), NOON_NS, 0)
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
    engine.settle(organization, name(1), 60, 10, None, NOON_NS, 0)
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
    assert refused_by_rule(engine, "gpt-4o") is None
    rules = [{"scope": {"kind": "team", "id": TEAM}, "models": ["gpt-4o-mini"]}]
    engine.load_organization(snapshot(rules=rules), b"[]", NOON_NS, 0)
    assert refused_by_rule(engine, "gpt-4o") == ("model_not_allowed", "team")
    assert refused_by_rule(engine, "gpt-4o-mini") is None


def refused_by_rule(engine: Engine, model: str, key: int = 0) -> tuple[str, str] | None:
    return engine.refused_by_rule(
        key, model=model, provider="openai", endpoint="/v1/chat", request_class="interactive"
    )


def test_a_lowered_budget_binds_the_next_request(engine: Engine) -> None:
    assert isinstance(admit(engine, 1, 60), Admission)
    engine.load_organization(snapshot(limit(60)), b"[]", NOON_NS, 0)
    assert isinstance(admit(engine, 2, 1), Refusal)


def test_a_reservation_accrues_and_settles_once(engine: Engine) -> None:
    organization = engine.organization_index(ORGANIZATION)
    admit(engine, 1, 100)
    refusal = admit(engine, 2, 1)
    assert isinstance(refusal, Refusal)
    assert refusal.waits_for == "open_requests"
    engine.progress(organization, name(1), 25, 5, NOON_NS, 0)
    now = state(engine)
    assert (now["settled"], now["used"], now["held"]) == (0, 25, 75)
    done = engine.settle(organization, name(1), 130, 5, None, NOON_NS, 0)
    assert (done.first, done.seq, done.spend_nanos, done.tokens) == (True, 1, 130, 5)
    assert (done.cost_nanos, done.overrun_nanos, done.exceeded) == (130, 30, [LIMIT])
    assert done.bound_ratio == 2
    again = engine.settle(organization, name(1), 1, 1, None, NOON_NS, 0)
    assert (again.first, again.seq, again.spend_nanos) == (False, 1, 130)
    now = state(engine)
    assert (now["settled"], now["used"], now["held"]) == (130, 130, 0)


def expecting(cap: int, **changes: object) -> bytes:
    """A policy with one budget that holds what is expected, so that it follows streams."""
    return snapshot(limit(cap, hold="expected", **changes))


def teach(engine: Engine, output_tokens: int, at: int = 900) -> None:
    """Settle five answers of a length, which is how many it takes to expect it."""
    organization = engine.organization_index(ORGANIZATION)
    for number in range(at, at + 5):
        assert isinstance(admit(engine, number, 0, tokens=output_tokens), Admission)
        engine.settle(organization, name(number), 0, 0, output_tokens, NOON_NS, 0)


def stream(engine: Engine, number: int) -> Admission:
    """Admit a stream of a hundred tokens at most, at one nano unit each, in steps of ten."""
    changes = {"tokens": 100, "streams": "stream", "step_tokens": 10}
    decision = admit(engine, number, 100, **changes)
    assert isinstance(decision, Admission)
    return decision


def test_a_stream_holds_what_is_expected_and_is_extended_up_to_its_bound(engine: Engine) -> None:
    engine.load_organization(expecting(1000), b"[]", NOON_NS, 0)
    organization = engine.organization_index(ORGANIZATION)
    assert stream(engine, 1).spend_nanos == 100
    engine.release(organization, name(1), NOON_NS, 0)
    teach(engine, 20)
    admission = stream(engine, 2)
    assert (admission.extendable, admission.output_tokens_allowed) == (True, 20)
    assert (admission.spend_nanos, admission.bound_nanos, admission.tokens) == (30, 100, 30)
    assert engine.extend(organization, name(2), 20, NOON_NS, 0) == 20
    assert engine.extend(organization, name(2), 21, NOON_NS, 0) == 31
    # What has outgrown its expectation is expected to go on.
    assert 41 <= state(engine)["held"] <= 100
    assert engine.extend(organization, name(2), 95, NOON_NS, 0) == 100
    assert engine.extend(organization, name(2), 100, NOON_NS, 0) == 100
    assert state(engine)["held"] == 100
    assert not engine.has_effects(organization)


def test_where_there_is_no_room_the_youngest_stream_is_cut_and_the_other_goes_on(
    engine: Engine,
) -> None:
    engine.load_organization(expecting(75), b"[]", NOON_NS, 0)
    organization = engine.organization_index(ORGANIZATION)
    teach(engine, 20)
    stream(engine, 1)
    stream(engine, 2)
    assert engine.extend(organization, name(1), 30, NOON_NS, 0) is None
    [cut] = engine.take_effects(organization)
    assert (cut.kind, cut.reservation_id) == ("cut", name(2))
    assert isinstance(cut.decision, Refusal)
    assert (cut.decision.limit_id, cut.decision.cap) == (LIMIT, 75)
    engine.settle(organization, name(2), 22, 22, None, NOON_NS, 0)
    [granted] = engine.take_effects(organization)
    assert (granted.kind, granted.reservation_id, granted.tokens) == ("granted", name(1), 40)
    assert state(engine)["used"] == 22
    assert not isinstance(admit(engine, 3, 4), Admission)


def test_what_fails_on_open_requests_alone_waits_until_one_has_settled(engine: Engine) -> None:
    organization = engine.organization_index(ORGANIZATION)
    admit(engine, 1, 60)
    waiting = admit(engine, 2, 60, may_wait=True)
    assert isinstance(waiting, Waiting)
    assert (waiting.limit_id, waiting.scope_kind, waiting.is_queued) == (LIMIT, "key", False)
    assert waiting.timeout_ns == 30_000_000_000
    assert state(engine)["held"] == 60
    engine.settle(organization, name(1), 40, 4, None, NOON_NS, 7)
    [admitted] = engine.take_effects(organization)
    assert (admitted.kind, admitted.reservation_id) == ("admitted", name(2))
    assert isinstance(admitted.decision, Admission)
    assert admitted.decision.remaining_spend_nanos == 0
    assert not engine.go_on(organization, NOON_NS, 7)
    assert engine.take_effects(organization) == []


@pytest.mark.parametrize("ends", ["time", "give_up", "leave"])
def test_whoever_leaves_the_line_holds_nothing(engine: Engine, ends: str) -> None:
    organization = engine.organization_index(ORGANIZATION)
    admit(engine, 1, 60)
    before = state(engine)
    waiting = admit(engine, 2, 60, may_wait=True)
    assert isinstance(waiting, Waiting)
    end_ns = waiting.timeout_ns
    assert engine.go_on(organization, NOON_NS + end_ns - 1, end_ns - 1)
    assert not engine.has_effects(organization)
    decision: object = None
    if ends == "time":
        assert not engine.go_on(organization, NOON_NS + end_ns, end_ns)
        [ended] = engine.take_effects(organization)
        assert (ended.kind, ended.reservation_id) == ("ended", name(2))
        decision = ended.decision
    elif ends == "give_up":
        decision = engine.give_up(organization, name(2), NOON_NS, 0)
    else:
        assert engine.leave(organization, name(2), NOON_NS, 0)
        assert not engine.leave(organization, name(2), NOON_NS, 0)
    if isinstance(decision, Refusal):
        assert (decision.code, decision.waits_for) == ("key_budget_exceeded", "open_requests")
        assert (decision.held, decision.requested) == (60, 60)
    assert (decision is None) == (ends == "leave")
    assert not engine.has_effects(organization)
    assert state(engine) == before
    assert engine.open_reservations(ORGANIZATION) == 1


def test_a_step_asks_for_another_model_and_is_passed_once(engine: Engine) -> None:
    steps = [
        {"percent": 40, "action": "notify"},
        {"percent": 50, "action": "downgrade", "model": "gpt-4o-mini"},
        {"percent": 80, "action": "confirm"},
        {"percent": 90, "action": "notify"},
    ]
    engine.load_organization(snapshot(limit(100, steps=steps)), b"[]", NOON_NS, 0)
    organization = engine.organization_index(ORGANIZATION)
    assert isinstance(admit(engine, 1, 50), Admission)
    done = engine.settle(organization, name(1), 80, 1, None, NOON_NS, 0)
    assert [crossed[2] for crossed in done.crossed] == [40]
    before = state(engine)
    asked = admit(engine, 2, 1)
    assert isinstance(asked, Diversion)
    assert (asked.limit_id, asked.scope_kind, asked.scope_id) == (LIMIT, "key", KEY)
    assert (asked.action, asked.model, asked.step, asked.percent) == (
        "downgrade", "gpt-4o-mini", 1, 50,
    )  # fmt: skip
    asked = admit(engine, 2, 1, taken=[(LIMIT, 2)])
    assert isinstance(asked, Diversion)
    assert (asked.action, asked.model, asked.step, asked.percent) == ("confirm", None, 2, 80)
    assert state(engine) == before
    assert isinstance(admit(engine, 2, 1, taken=[(LIMIT, 3)]), Admission)


def test_a_charge_is_the_cost_by_the_terms_of_the_policy(engine: Engine) -> None:
    charging = {
        "rates": [{"from_ns": 0, "picos": 2 * 10**12}],
        "markup_ppm": 100_000,
        "fee_nanos": 3,
    }
    engine.load_organization(snapshot(limit(100), charging=charging), b"[]", NOON_NS, 0)
    assert [engine.charge(0, cost, NOON_NS) for cost in (0, 1, 10)] == [0, 6, 25]
    admission = admit(engine, 1, 10)
    assert isinstance(admission, Admission)
    assert (admission.spend_nanos, admission.bound_cost_nanos) == (25, 10)
    done = engine.settle(0, name(1), 1, 1, None, NOON_NS, 0)
    assert (done.spend_nanos, done.cost_nanos) == (6, 1)


def test_a_breaker_tells_when_it_opens_and_when_it_closes(engine: Engine) -> None:
    window = {"kind": "rolling", "seconds": 60}
    breaker = limit(50, kind="breaker", window=window, mode="metered")
    engine.load_organization(snapshot(breaker), b"[]", NOON_NS, 0)
    admit(engine, 1, 10)
    engine.settle(0, name(1), 50, 1, None, NOON_NS, 0)
    [opened] = engine.take_effects(0)
    assert (opened.kind, opened.limit_id, opened.scope_kind) == ("breaker", LIMIT, "key")
    assert (opened.scope_id, opened.is_open, opened.at_wall_ns) == (KEY, True, NOON_NS)
    assert (opened.sum, opened.cap) == (50, 50)
    refusal = admit(engine, 2, 1)
    assert isinstance(refusal, Refusal)
    assert refusal.code == "spend_circuit_open"
    free_ns = refusal.retry_after_ns
    assert free_ns is not None
    assert engine.go_on(0, NOON_NS + free_ns - 1, free_ns - 1)
    assert not engine.has_effects(0)
    assert not engine.go_on(0, NOON_NS + free_ns, free_ns)
    [closed] = engine.take_effects(0)
    assert (closed.is_open, closed.at_wall_ns) == (False, NOON_NS + free_ns)


def test_limits_of_the_installation_hold_for_every_organization(engine: Engine) -> None:
    scope = {"kind": "provider", "id": "5f6d1a3c-0000-0000-0000-000000000000"}
    shared = {"version": "s1", "limits": [limit(0, id=MEMBER, scope=scope)]}
    written = json.dumps(shared).encode()
    [wanted] = json.loads(engine.missing_shared(written, NOON_NS, 0))
    assert wanted["scope"] == scope
    engine.load_shared(written, b"[]", NOON_NS, 0)
    assert isinstance(admit(engine, 1, 1), Admission)
    [shown] = json.loads(engine.shared_states(NOON_NS, 0))
    assert (shown["limit_id"], shown["used"]) == (MEMBER, 0)
    named = hashlib.sha256(b"provider\0openai").digest()[:16]
    scope["id"] = str(UUID(bytes=named))
    engine.load_shared(json.dumps(shared).encode(), b"[]", NOON_NS, 0)
    refusal = admit(engine, 2, 1)
    assert isinstance(refusal, Refusal)
    assert (refusal.code, refusal.waits_for) == ("provider_budget_exceeded", "never")


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
    done = engine.settle(organization, name(1), 1, 1, None, NOON_NS, 0)
    engine.booked_through(organization, done.seq)
    with pytest.raises(EngineError) as failure:
        engine.settle(organization, name(1), 1, 1, None, NOON_NS, 0)
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
    ("invalid_argument", lambda engine: engine.settle(0, b"short", 0, 0, None, 0, 0)),
    ("invalid_argument", lambda engine: admit(engine, 1, -1)),
    ("invalid_argument", lambda engine: admit(engine, 1, 1, streams="sideways")),
    ("invalid_argument", lambda engine: admit(engine, 1, 1, choices=0)),
    ("invalid_argument", lambda engine: admit(engine, 1, 1, calibration=1001)),
    ("invalid_argument", lambda engine: engine.extend(0, name(7), -1, 0, 0)),
    ("too_many", lambda engine: admit(engine, 1, 1, taken=[(LIMIT, 1)] * 1001)),
    ("invalid_argument", lambda engine: engine.booked_through(0, 1)),
    ("invalid_json", lambda engine: engine.load_keys(b"{")),
    ("invalid_json", lambda engine: engine.load_organization(b"{}", b"[]", 0, 0)),
    (
        "invalid_keys",
        lambda engine: engine.load_keys(key(secrets=[{"digest": "00", "expires_at_ns": None}])),
    ),
    ("invalid_policy", lambda engine: engine.missing_counters(snapshot(limit(-1)), 0, 0)),
    ("unknown_key", lambda engine: refused_by_rule(engine, "gpt-4o", key=1)),
    ("unknown_organization", lambda engine: engine.open_reservations(TEAM)),
    ("unknown_organization", lambda engine: engine.open_reservations("no id")),
    ("unknown_reservation", lambda engine: engine.release(0, name(9), 0, 0)),
    ("unknown_reservation", lambda engine: engine.give_up(0, name(9), 0, 0)),
    ("unknown_reservation", lambda engine: engine.extend(0, name(9), 1, 0, 0)),
    ("already_released", lambda engine: engine.settle(0, name(7), 0, 0, None, 0, 0)),
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
