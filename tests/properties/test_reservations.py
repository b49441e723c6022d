"""Reservations through the binding behave like a dictionary that is added up from scratch."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from uuid import UUID

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from core_rs import Admission, Ask, Engine, EngineError, Refusal

FULL = os.environ.get("COMPTROLLER_TEST_FULL") == "1"
NOON_NS = 1_767_268_800_000_000_000
DAY_NS = 86_400_000_000_000
BUDGET, QUOTA, SOFT = 1_000, 12, 5
ORGANIZATION, KEY, TEAM, *LIMITS = (str(UUID(int=number)) for number in range(1, 7))

amounts = st.integers(min_value=0, max_value=400)
turns = st.integers(min_value=0)


def _limit(place: int, kind: str, resource: str, mode: str, cap: int) -> dict[str, object]:
    return {
        "id": LIMITS[place],
        "kind": kind,
        "scope": {"kind": "team", "id": TEAM},
        "where": None,
        "resource": resource,
        "window": {"kind": "calendar", "period": "day", "time_zone": "UTC"},
        "cap": cap,
        "mode": mode,
        "hold": "bound",
    }


def _engine() -> Engine:
    engine = Engine()
    policy = {
        "organization_id": ORGANIZATION,
        "state": "active",
        "currency": "USD",
        "version": "v1",
        "limits": [
            _limit(0, "budget", "spend", "hard", BUDGET),
            _limit(1, "quota", "requests", "hard", QUOTA),
            _limit(2, "quota", "tokens", "soft", SOFT),
        ],
        "rules": [],
    }
    key = {
        "id": KEY,
        "organization_id": ORGANIZATION,
        "team_id": TEAM,
        "member_id": None,
        "pools": [],
        "state": "active",
        "expires_at_ns": None,
        "secrets": [],
    }
    engine.load_organization(json.dumps(policy).encode(), b"[]", NOON_NS, 0)
    engine.load_keys(json.dumps([key]).encode())
    return engine


def _ask(spend: int, tokens: int, *, streams: bool) -> Ask:
    """Ask for a request whose answer is all that it costs."""
    return Ask(
        model="gpt-4o",
        provider="openai",
        input_tokens=0,
        output_tokens_max=tokens,
        bound_nanos=spend,
        input_nanos=0,
        output_picos=-(-spend * 1000 // max(1, tokens)),
        step_tokens=10,
        streams="stream" if streams else "plain",
    )


def _facts(decision: Admission | Refusal) -> dict[str, object]:
    """Give every figure of a decision, by name, and what it is."""
    names = [name for name in dir(type(decision)) if not name.startswith("_")]
    facts = {name: getattr(decision, name) for name in names if name != "seen_json"}
    return {**facts, "is": type(decision), "seen": decision.seen_json()}


@dataclass
class Entry:
    """What the model keeps of one reservation; `end` is open, settled or released."""

    day: int
    spend: int
    tokens: int
    bound: int
    bound_tokens: int
    spent: int = 0
    used: int = 0
    end: str = "open"


class Reservations(RuleBasedStateMachine):
    """Reserve, extend, progress, settle and release in any order, over days."""

    def __init__(self) -> None:
        super().__init__()
        self.engine = _engine()
        self.organization = self.engine.organization_index(ORGANIZATION)
        self.entries: list[Entry] = []
        self.elapsed_ns = 0

    @property
    def now(self) -> tuple[int, int]:
        return NOON_NS + self.elapsed_ns, self.elapsed_ns

    @property
    def day(self) -> int:
        return self.now[0] // DAY_NS

    def name(self, place: int) -> bytes:
        return place.to_bytes(16, "big")

    def figures(self, day: int) -> tuple[int, int, int]:
        """Spend used, spend held, requests of a day."""
        counted = [entry for entry in self.entries if entry.day == day and entry.end != "released"]
        held = sum(entry.spend - entry.spent for entry in counted if entry.end == "open")
        return sum(entry.spent for entry in counted), held, len(counted)

    def observed(self) -> tuple[bytes, int]:
        """All that can be seen of the engine from outside."""
        states = self.engine.limit_states(ORGANIZATION, *self.now)
        return states, self.engine.open_reservations(ORGANIZATION)

    def pick(self, turn: int, *ends: str) -> int:
        fitting = [place for place, entry in enumerate(self.entries) if entry.end in ends]
        return fitting[turn % len(fitting)]

    def has(*ends: str):
        return precondition(lambda self: any(entry.end in ends for entry in self.entries))

    @rule(ns=st.sampled_from([1, 1_000_000_000, DAY_NS // 2]))
    def wait(self, ns: int) -> None:
        self.elapsed_ns += ns

    @rule(spend=amounts, tokens=amounts, streams=st.booleans())
    def reserve(self, spend: int, tokens: int, streams: bool) -> None:
        used, held, requests = self.figures(self.day)
        fits = used + held + spend <= BUDGET and requests + 1 <= QUOTA
        name = self.name(len(self.entries))
        before = self.observed()
        asked = _ask(spend, tokens, streams=streams)
        preview = self.engine.preview(0, asked, *self.now)
        assert self.observed() == before
        decision = self.engine.admit(0, name, asked, *self.now)
        assert isinstance(decision, Admission if fits else Refusal)
        assert _facts(preview) == _facts(decision)
        if isinstance(decision, Admission):
            assert decision.remaining_spend_nanos == BUDGET - used - held - spend
            assert decision.output_tokens_allowed == tokens
            self.entries.append(Entry(self.day, spend, tokens, spend, tokens))
        else:
            expected = "plan_quota_exceeded" if requests + 1 > QUOTA else "team_budget_exceeded"
            assert decision.code == expected

    @has("open")
    @rule(turn=turns, tokens=amounts)
    def extend(self, turn: int, tokens: int) -> None:
        """A limit that holds bounds has room for every token up to it, and none is held beyond."""
        place = self.pick(turn, "open")
        before = self.observed()
        allowed = self.engine.extend(self.organization, self.name(place), tokens, *self.now)
        assert allowed == self.entries[place].bound_tokens
        assert self.observed() == before

    @has("open")
    @rule(turn=turns, spend=amounts, tokens=amounts)
    def progress(self, turn: int, spend: int, tokens: int) -> None:
        place = self.pick(turn, "open")
        entry = self.entries[place]
        self.engine.progress(self.organization, self.name(place), spend, tokens, *self.now)
        entry.spent, entry.used = max(entry.spent, spend), max(entry.used, tokens)
        entry.spend, entry.tokens = max(entry.spend, entry.spent), max(entry.tokens, entry.used)

    @has("open")
    @rule(turn=turns, spend=amounts, tokens=amounts)
    def settle(self, turn: int, spend: int, tokens: int) -> None:
        place = self.pick(turn, "open")
        entry = self.entries[place]
        done = self.engine.settle(
            self.organization, self.name(place), spend, tokens, None, *self.now
        )
        assert done.first
        assert done.overrun_nanos == max(0, spend - entry.bound)
        entry.spent, entry.used, entry.end = spend, tokens, "settled"
        used, held, _ = self.figures(entry.day)
        assert (LIMITS[0] in done.exceeded) == (used + held > BUDGET)

    @has("settled")
    @rule(turn=turns, spend=amounts)
    def settle_again(self, turn: int, spend: int) -> None:
        place = self.pick(turn, "settled")
        again = self.engine.settle(self.organization, self.name(place), spend, 0, None, *self.now)
        assert not again.first
        assert again.spend_nanos == self.entries[place].spent

    @has("open")
    @rule(turn=turns)
    def release(self, turn: int) -> None:
        place = self.pick(turn, "open")
        assert self.engine.release(self.organization, self.name(place), *self.now)
        self.entries[place].end = "released"

    @has("settled", "released")
    @rule(turn=turns)
    def end_otherwise(self, turn: int) -> None:
        place = self.pick(turn, "settled", "released")
        name, settled = self.name(place), self.entries[place].end == "settled"
        amounts = () if settled else (1, 1, None)
        end = self.engine.release if settled else self.engine.settle
        with pytest.raises(EngineError) as failure:
            end(self.organization, name, *amounts, *self.now)
        assert failure.value.code == ("already_settled" if settled else "already_released")

    @invariant()
    def counters_are_what_was_used_and_what_is_held(self) -> None:
        states = json.loads(self.engine.limit_states(ORGANIZATION, *self.now))
        spend, requests, tokens = sorted(states, key=lambda state: str(state["limit_id"]))
        used, held, count = self.figures(self.day)
        assert (spend["used"], spend["held"]) == (used, held)
        assert (requests["used"], requests["held"]) == (count, 0)
        today = [entry for entry in self.entries if entry.day == self.day]
        assert tokens["used"] == sum(entry.used for entry in today if entry.end != "released")
        still = sum(entry.end == "open" for entry in self.entries)
        assert self.engine.open_reservations(ORGANIZATION) == still


TestReservations = Reservations.TestCase
TestReservations.settings = settings(
    max_examples=2_000 if FULL else 50,
    stateful_step_count=60 if FULL else 40,
    deadline=None,
    derandomize=not FULL,
)
