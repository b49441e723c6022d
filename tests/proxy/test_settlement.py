"""The guard ends its reservation once, whatever the provider says and the engine answers."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest

from controlplane.clock import ManualClock
from controlplane.ledger.records import DecisionRecord
from controlplane.pricing.sheet import compile_sheet
from core_rs import Admission, Ask, Effect, Engine, PriceSheet, StreamMeter, parse_chat_answer
from proxy.calibrations import Calibrations
from proxy.course import Course
from proxy.enforcement import Enforcer
from proxy.question import Question
from proxy.rulings import Rulings
from proxy.settlement import CONTEXT_WINDOW_UNKNOWN, USAGE_BELIEVED_RATIO, Books, Reservation
from proxy.wire.openai_chat import parse_chat

ORGANIZATION, KEY, LIMIT = (str(UUID(int=number)) for number in range(1, 4))
SECRET = hashlib.sha256(b"secret").digest()
MODEL = "gpt-4o-mini"
INT_MAX = 2**63 - 1
HOUR_NS = 3_600_000_000_000


class BreakOff(Exception):
    """Something went wrong in the middle of a request."""


class Records(list[DecisionRecord]):
    """Takes what a recorder would write."""

    def put(self, record: DecisionRecord) -> None:
        self.append(record)


class Bench:
    """An engine with one key under a soft daily limit, and one request it admitted."""

    def __init__(self, clock: ManualClock, sheet: PriceSheet) -> None:
        self.clock = clock
        self.sheet = sheet
        self.records = Records()
        self.engine = _engine(clock)
        self.calibrations = Calibrations()
        self.organization = self.engine.organization_index(ORGANIZATION)
        price = sheet.find("openai", MODEL)
        assert price is not None
        self.price = price

    def reserve(self, *, output_tokens: int = 50, number: int = 1, **facts: Any) -> Reservation:
        """Admit a request that may get so many tokens back."""
        messages = [{"role": "user", "content": "Hello"}]
        body = {"model": MODEL, "messages": messages, "max_tokens": output_tokens, "stream": True}
        chat = parse_chat(json.dumps(body).encode())
        principal = self.engine.authenticate(SECRET, self.clock.wall_ns())
        assert principal is not None
        course = Course(
            request_id=_name(number),
            route="/v1/chat/completions",
            principal=principal,
            currency="USD",
            price_version=self.sheet.version,
            wall_ns=self.clock.wall_ns(),
            mono_ns=self.clock.mono_ns(),
            chat=chat,
        )
        bound = self.sheet.bound(
            self.price, chat.input_tokens_max, output_tokens, 1, course.wall_ns
        )
        tokens = chat.input_tokens_max + output_tokens
        course.admission = self.admit(number, bound, tokens)
        deployment: Any = SimpleNamespace(
            model=MODEL,
            upstream_model=MODEL,
            provider="openai",
            vocabulary="o200k_base",
            all_tokens_visible=True,
            on_disconnect="cancel",
            abort_tail_tokens=0,
            reasoning_tokens_per_s=None,
            tier=None,
        )
        vars(deployment).update(facts)
        course.deployment = deployment
        enforcer = Enforcer(self.engine, self.clock, _no_breaker)
        records: Any = self.records
        books = Books(enforcer, records, self.clock, self.calibrations)
        ruling = Rulings(self.engine).of(principal)
        question = Question(chat, deployment, self.price, output_tokens, ruling)
        return Reservation(books, course, course.admission, self.sheet, question)

    def admit(self, number: int, spend_nanos: int, tokens: int = 0) -> Admission:
        now = (self.clock.wall_ns(), self.clock.mono_ns())
        asked = Ask(
            model=MODEL,
            provider="openai",
            input_tokens=tokens,
            output_tokens_max=0,
            bound_nanos=spend_nanos,
            input_nanos=spend_nanos,
            output_picos=0,
        )
        decision = self.engine.admit(0, _name(number), asked, *now)
        assert isinstance(decision, Admission)
        return decision

    def state(self) -> dict[str, Any]:
        now = (self.clock.wall_ns(), self.clock.mono_ns())
        [state] = json.loads(self.engine.limit_states(ORGANIZATION, *now))
        return dict(state)

    @property
    def record(self) -> DecisionRecord:
        """The one record there is; nothing is held any more."""
        assert self.engine.open_reservations(ORGANIZATION) == 0
        assert self.state()["held"] == 0
        [record] = self.records
        return record


def _no_breaker(organization_id: str, effect: Effect) -> None:
    pytest.fail(f"{organization_id} has no breaker: {effect.kind}")


def _name(number: int) -> bytes:
    return number.to_bytes(16, "big")


def _engine(clock: ManualClock) -> Engine:
    limit = {
        "id": LIMIT,
        "kind": "budget",
        "scope": {"kind": "key", "id": KEY},
        "where": None,
        "resource": "spend",
        "window": {"kind": "calendar", "period": "day", "time_zone": "UTC"},
        "cap": 10**9,
        "mode": "soft",
        "hold": "bound",
    }
    policy = {
        "organization_id": ORGANIZATION,
        "state": "active",
        "currency": "USD",
        "version": "v1",
        "limits": [limit],
        "rules": [],
    }
    key = {
        "id": KEY,
        "organization_id": ORGANIZATION,
        "team_id": None,
        "member_id": None,
        "pools": [],
        "state": "active",
        "expires_at_ns": None,
        "secrets": [{"digest": SECRET.hex(), "expires_at_ns": None}],
    }
    engine = Engine()
    now = (clock.wall_ns(), clock.mono_ns())
    engine.load_organization(json.dumps(policy).encode(), b"[]", *now)
    engine.load_keys(json.dumps([key]).encode())
    return engine


@pytest.fixture(scope="module")
def sheet() -> PriceSheet:
    return PriceSheet(compile_sheet(()).json)


@pytest.fixture
def bench(clock: ManualClock, sheet: PriceSheet) -> Bench:
    return Bench(clock, sheet)


def _answer(prompt: int, completion: int, text: str = "Hello there") -> Any:
    usage = {"prompt_tokens": prompt, "completion_tokens": completion}
    message = {"role": "assistant", "content": text}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    body = {"id": "1", "object": "chat.completion", "choices": [choice], "usage": usage}
    return parse_chat_answer(json.dumps(body).encode(), "o200k_base")


def _frame(text: str | None = None, usage: tuple[int, int] | None = None) -> bytes:
    choices = [] if text is None else [{"index": 0, "delta": {"content": text}}]
    frame: dict[str, Any] = {"id": "1", "object": "chat.completion.chunk", "choices": choices}
    if usage is not None:
        frame["usage"] = {"prompt_tokens": usage[0], "completion_tokens": usage[1]}
    return b"data: " + json.dumps(frame).encode() + b"\n\n"


def _break_off(reservation: Reservation, *frames: bytes) -> None:
    """Relay frames of a stream, then fail."""
    meter = StreamMeter(strip_usage=False, vocabulary="o200k_base")
    with reservation:
        reservation.sending()
        reservation.streaming(meter)
        for frame in frames:
            meter.feed(frame)
        raise BreakOff


def test_a_usage_beyond_what_was_held_is_booked_as_an_overrun(bench: Bench) -> None:
    with bench.reserve() as reservation:
        reservation.sending()
        measured = reservation.finish_answer(_answer(5_000, 50))
    record = bench.record
    assert (record.usage_source, record.input_tokens) == ("provider", 5_000)
    assert record.entry is not None
    assert record.entry.overrun_nanos == measured.cost_nanos - record.held_nanos > 0
    assert bench.state()["used"] == measured.cost_nanos


@pytest.mark.parametrize("beyond", [0, 1])
def test_a_usage_is_believed_up_to_twice_what_its_model_takes_in(bench: Bench, beyond: int) -> None:
    window = bench.sheet.context_window(bench.price)
    assert window is not None
    tokens = USAGE_BELIEVED_RATIO * window - 2 + beyond
    with bench.reserve() as reservation:
        reservation.sending()
        reservation.finish_answer(_answer(tokens, 2))
    record = bench.record
    assert record.usage_source == ("provider" if beyond == 0 else "own_count")
    assert (record.input_tokens == tokens) == (beyond == 0)
    assert bench.state()["used"] == record.charge_nanos


def test_what_a_request_holds_is_believed_whatever_its_model_is_said_to_take(bench: Bench) -> None:
    held = 4 * CONTEXT_WINDOW_UNKNOWN
    with bench.reserve(output_tokens=held) as reservation:
        reservation.sending()
        reservation.finish_answer(_answer(10, held))
    assert (bench.record.usage_source, bench.record.output_tokens) == ("provider", held)


def test_an_amount_the_engine_refuses_is_booked_as_what_was_held(bench: Bench) -> None:
    with bench.reserve() as reservation:
        held = bench.state()["held"]
        bench.admit(2, INT_MAX - held)
        reservation.sending()
        measured = reservation.finish_answer(_answer(5_000, 50))
    assert bench.engine.release(bench.organization, _name(2), bench.clock.wall_ns(), 0)
    record = bench.record
    assert (measured.source, record.usage_source) == ("held", "held")
    assert measured.cost_nanos == record.charge_nanos == record.held_nanos == held
    assert (record.seq, bench.state()["used"]) == (1, held)


def test_money_of_a_reservation_that_the_engine_has_lost_is_in_the_ledger(bench: Bench) -> None:
    with bench.reserve() as reservation:
        reservation.sending()
        now = (bench.clock.wall_ns(), bench.clock.mono_ns())
        assert bench.engine.release(bench.organization, _name(1), *now)
        reservation.finish_answer(_answer(20, 2))
    record = bench.record
    assert record.entry is not None
    assert (record.usage_source, record.seq) == ("held", 0)
    assert record.charge_nanos == record.held_nanos > 0


def test_a_request_that_cannot_be_measured_costs_what_was_held(bench: Bench) -> None:
    with pytest.raises(BreakOff):
        _break_off(bench.reserve(abort_tail_tokens=-(10**6)))
    record = bench.record
    assert (record.usage_source, record.decision) == ("held", "failed")
    assert record.charge_nanos == record.held_nanos == bench.state()["used"] > 0


def test_an_answer_without_usage_of_a_model_that_hides_tokens_costs_what_was_held(
    bench: Bench,
) -> None:
    with bench.reserve(all_tokens_visible=False) as reservation:
        reservation.sending()
        reservation.finish_answer(_answer(10**9, 1))
    record = bench.record
    assert (record.usage_source, record.charge_nanos) == ("held", record.held_nanos)


def test_a_usage_from_the_middle_of_a_stream_does_not_hide_what_came_after_it(bench: Bench) -> None:
    with pytest.raises(BreakOff):
        _break_off(bench.reserve(), _frame("one", usage=(12, 1)), _frame(" two three four five"))
    record = bench.record
    assert (record.usage_source, record.output_tokens) == ("own_count", 5)
    assert record.charge_nanos == bench.state()["used"]


def test_a_broken_stream_of_a_provider_that_goes_on_generating_costs_what_was_held(
    bench: Bench,
) -> None:
    with pytest.raises(BreakOff):
        _break_off(bench.reserve(on_disconnect="drain"), _frame("one two"))
    record = bench.record
    assert (record.usage_source, record.charge_nanos) == ("held", record.held_nanos)
    assert bench.state()["used"] == record.charge_nanos > 0


def test_a_usage_that_came_with_the_end_of_a_stream_counts_although_the_client_left(
    bench: Bench,
) -> None:
    end = _frame(usage=(12, 2)) + b"data: [DONE]\n\n"
    with pytest.raises(BreakOff):
        _break_off(bench.reserve(abort_tail_tokens=40), _frame("one two"), end)
    record = bench.record
    assert (record.usage_source, record.input_tokens, record.output_tokens) == ("provider", 12, 2)


def test_a_request_never_sent_costs_nothing_and_holds_nothing(bench: Bench) -> None:
    with pytest.raises(BreakOff), bench.reserve():
        raise BreakOff
    assert (bench.record.entry, bench.record.charge_nanos) == (None, 0)
    assert bench.state()["used"] == 0


def test_the_record_names_the_instant_whose_period_counts_it_after_the_clock_jumped_back(
    sheet: PriceSheet,
) -> None:
    clock = ManualClock(datetime(2026, 4, 1, 0, 10, tzinfo=UTC))
    bench = Bench(clock, sheet)
    seen_ns = clock.wall_ns()
    clock.jump_wall_ns(-HOUR_NS)
    with bench.reserve() as reservation:
        reservation.sending()
        reservation.finish_answer(_answer(20, 2))
    record = bench.record
    assert record.admitted_at_ns == seen_ns
    assert record.invoice_period == "2026-04"
    assert record.entry is not None
    assert record.entry.settled_at_ns == seen_ns - HOUR_NS
    assert bench.state()["used"] == record.charge_nanos > 0
