"""Streams that grow and requests that wait, through the binding: what must always hold.

The figures of holds are the engine's own business, and its simulation checks them. Here streams
relay what they may and cost what they relayed and the step that comes after an abort: however they
are mixed with requests in one piece, in whatever order they end, the cap is never passed, whoever
waits is told once, and what is refused or waits leaves no trace.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from uuid import UUID

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from core_rs import Admission, Ask, Engine, Refusal, Waiting

FULL = os.environ.get("COMPTROLLER_TEST_FULL") == "1"
NOON_NS = 1_767_268_800_000_000_000
WAIT_NS = 30_000_000_000
CAP, TEAM_CAP, STEP = 1_000, 700, 10
ORGANIZATION, TEAM, *IDS = (str(UUID(int=number)) for number in range(1, 8))
KEYS, LIMITS = IDS[:2], IDS[2:]

turns = st.integers(min_value=0)
tokens = st.integers(min_value=1, max_value=400)


def _limit(place: int, kind: str, scope_id: str, cap: int) -> dict[str, object]:
    return {
        "id": LIMITS[place],
        "kind": "budget",
        "scope": {"kind": kind, "id": scope_id},
        "where": None,
        "resource": "spend",
        "window": {"kind": "calendar", "period": "month", "time_zone": "UTC"},
        "cap": cap,
        "mode": "hard",
        "hold": "expected",
    }


def _engine() -> Engine:
    engine = Engine()
    policy = {
        "organization_id": ORGANIZATION,
        "state": "active",
        "currency": "USD",
        "version": "v1",
        "limits": [
            _limit(0, "organization", ORGANIZATION, CAP),
            _limit(1, "team", TEAM, TEAM_CAP),
        ],
        "rules": [],
    }
    keys = [
        {
            "id": key,
            "organization_id": ORGANIZATION,
            "team_id": team,
            "member_id": None,
            "pools": [],
            "state": "active",
            "expires_at_ns": None,
            "secrets": [],
        }
        for key, team in zip(KEYS, (TEAM, None), strict=True)
    ]
    engine.load_organization(json.dumps(policy).encode(), b"[]", NOON_NS, 0)
    engine.load_keys(json.dumps(keys).encode())
    return engine


@dataclass
class Entry:
    """One request at one nano unit a token; `state` is waits, open, pending, cut or ended."""

    key: int
    most: int
    streams: bool
    state: str
    allowed: int = 0
    relayed: int = 0
    told: int = 0


class Growing(RuleBasedStateMachine):
    """Admit, extend, settle, release and leave in any order, and pass on what effects tell."""

    def __init__(self) -> None:
        super().__init__()
        self.engine = _engine()
        self.entries: list[Entry] = []
        self.elapsed_ns = 0
        self.spent = [0, 0]

    @property
    def now(self) -> tuple[int, int]:
        return NOON_NS + self.elapsed_ns, self.elapsed_ns

    def name(self, place: int) -> bytes:
        return place.to_bytes(16, "big")

    def figures(self) -> list[tuple[int, int, int]]:
        """Give settled, used and held of each limit."""
        states = json.loads(self.engine.limit_states(ORGANIZATION, *self.now))
        ordered = sorted(states, key=lambda state: str(state["limit_id"]))
        return [(state["settled"], state["used"], state["held"]) for state in ordered]

    def places(self, *states: str) -> list[int]:
        return [place for place, entry in enumerate(self.entries) if entry.state in states]

    def has(*states: str):
        return precondition(lambda self: bool(self.places(*states)))

    def pick(self, turn: int, *states: str) -> int:
        fitting = self.places(*states)
        return fitting[turn % len(fitting)]

    def admitted(self, entry: Entry, admission: Admission) -> None:
        entry.state, entry.allowed = "open", admission.output_tokens_allowed
        assert admission.extendable == entry.streams
        assert 0 <= entry.allowed <= entry.most

    def take(self) -> None:
        """Do what effects tell; each waiting request is told once, each cut comes once."""
        while self.engine.has_effects(0):
            for effect in self.engine.take_effects(0):
                assert effect.reservation_id is not None
                entry = self.entries[int.from_bytes(effect.reservation_id, "big")]
                if effect.kind in {"admitted", "ended"}:
                    assert entry.state == "waits"
                    entry.told += 1
                    entry.state = "ended"
                if effect.kind == "admitted":
                    assert isinstance(effect.decision, Admission)
                    self.admitted(entry, effect.decision)
                elif effect.kind == "granted":
                    assert entry.state == "pending"
                    assert effect.tokens is not None
                    entry.state, entry.allowed = "open", effect.tokens
                elif effect.kind == "cut":
                    assert entry.streams
                    assert entry.state in {"open", "pending"}
                    assert isinstance(effect.decision, Refusal)
                    entry.state = "cut"

    @rule(key=st.sampled_from([0, 1]), most=tokens, streams=st.booleans(), may_wait=st.booleans())
    def ask(self, key: int, most: int, streams: bool, may_wait: bool) -> None:
        asked = Ask(
            model="gpt-4o",
            provider="openai",
            input_tokens=0,
            output_tokens_max=most,
            bound_nanos=most,
            input_nanos=0,
            output_picos=1_000,
            step_tokens=STEP,
            streams="stream" if streams else "plain",
            may_wait=may_wait,
        )
        before = self.figures()
        name = self.name(len(self.entries))
        decision = self.engine.admit(key, name, asked, *self.now)
        entry = Entry(key, most, streams, "ended")
        self.entries.append(entry)
        if isinstance(decision, Admission):
            self.admitted(entry, decision)
        else:
            assert isinstance(decision, Refusal | Waiting)
            assert may_wait or isinstance(decision, Refusal)
            assert self.figures() == before
            if isinstance(decision, Waiting):
                entry.state = "waits"
        self.take()

    @has("open")
    @rule(turn=turns, more=tokens)
    def relay(self, turn: int, more: int) -> None:
        """Generate more; what is not held for yet has to be asked for first."""
        place = self.pick(turn, "open")
        entry = self.entries[place]
        wanted = min(entry.relayed + more, entry.most)
        if wanted > entry.allowed:
            allowed = self.engine.extend(0, self.name(place), wanted, *self.now)
            if allowed is None:
                entry.state = "pending"
            else:
                assert wanted <= allowed <= entry.most
                entry.allowed = allowed
        if entry.state == "open":
            entry.relayed = wanted
        self.take()

    @has("open", "pending", "cut")
    @rule(turn=turns, tail=st.integers(min_value=0, max_value=STEP))
    def settle(self, turn: int, tail: int) -> None:
        place = self.pick(turn, "open", "pending", "cut")
        entry = self.entries[place]
        cost = min(entry.relayed + tail, entry.most)
        entry.state = "ended"
        learned = None if entry.streams and cost < entry.most else cost
        done = self.engine.settle(0, self.name(place), cost, cost, learned, *self.now)
        assert (done.first, done.overrun_nanos, done.exceeded) == (True, 0, [])
        self.spent[0] += cost
        self.spent[1] += cost if entry.key == 0 else 0
        self.take()

    @has("open", "pending", "cut")
    @rule(turn=turns)
    def release(self, turn: int) -> None:
        place = self.pick(turn, "open", "pending", "cut")
        self.entries[place].state = "ended"
        assert self.engine.release(0, self.name(place), *self.now)
        self.take()

    @has("waits")
    @rule(turn=turns)
    def leave(self, turn: int) -> None:
        place = self.pick(turn, "waits")
        self.entries[place].state = "ended"
        assert self.engine.leave(0, self.name(place), *self.now)
        assert not self.engine.leave(0, self.name(place), *self.now)
        self.take()

    @rule(ns=st.sampled_from([1, WAIT_NS // 2, WAIT_NS]))
    def wait(self, ns: int) -> None:
        self.elapsed_ns += ns
        waits = self.engine.go_on(0, *self.now)
        self.take()
        assert waits or not self.places("waits", "pending")

    @invariant()
    def no_cap_is_passed_and_nothing_is_lost(self) -> None:
        figures = self.figures()
        assert [used for _, used, _ in figures] == self.spent
        assert self.spent[0] <= CAP
        assert self.spent[1] <= TEAM_CAP
        still = self.places("open", "pending", "cut")
        assert self.engine.open_reservations(ORGANIZATION) == len(still)
        if not still:
            assert [held for *_, held in figures] == [0, 0]
        assert all(entry.told <= 1 for entry in self.entries)

    @invariant()
    def somebody_is_open_where_somebody_waits(self) -> None:
        """Whoever waits, waits for somebody: nothing stands still while nothing runs."""
        if not self.places("open", "pending", "cut"):
            assert self.places("waits") == []

    @invariant()
    def whoever_waits_for_room_waits_for_another_or_is_cut(self) -> None:
        others = self.places("open", "cut")
        if self.places("pending"):
            assert others

    def teardown(self) -> None:
        """When all have ended and time goes on, nobody waits and nothing is held."""
        while still := self.places("open", "pending", "cut"):
            self.entries[still[0]].state = "ended"
            self.engine.release(0, self.name(still[0]), *self.now)
            self.take()
        assert self.places("waits") == []
        assert not self.engine.go_on(0, *self.now)
        assert [held for *_, held in self.figures()] == [0, 0]


TestGrowing = Growing.TestCase
TestGrowing.settings = settings(
    max_examples=2_000 if FULL else 60,
    stateful_step_count=80 if FULL else 50,
    deadline=None,
    derandomize=not FULL,
)
