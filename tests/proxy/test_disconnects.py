"""Every way in which a client can leave, and the server too: never free, never leaked."""

from __future__ import annotations

import contextlib
import json
import socket
import sqlite3
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import httpx
import openai
import pytest

from comptroller.demo import simulated_upstreams
from comptroller.simulator.running import RunningSimulator, simulator_in_thread
from comptroller.simulator.settings import SimulatorSettings
from controlplane.ledger.models import DecisionRow
from controlplane.money import format_money
from tests.proxy.asking import (
    answers_well,
    ask,
    bill_at_rest,
    body,
    events,
    headers,
    last_error,
    the_record,
    until_settled,
)
from tests.stack import Stack, running_stack

ABORT_TAIL_TOKENS = 3
# Models whose streams are read on, closed, and closed though they bill what they do not show.
DRAINED, CANCELLED, HIDDEN = "sim-small", "cancelled", "hidden"
RESET = struct.pack("ii", 1, 0)


@pytest.fixture(scope="module")
def tailing_provider() -> Iterator[RunningSimulator]:
    """A provider that generates and bills three tokens more when a client has left."""
    with simulator_in_thread(SimulatorSettings(abort_tail_tokens=ABORT_TAIL_TOKENS)) as running:
        yield running


@pytest.fixture(scope="module")
def left_installation(
    tmp_path_factory: pytest.TempPathFactory, tailing_provider: RunningSimulator
) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("left")
    with _running(folder, tailing_provider, organization=False) as running:
        yield running


@contextmanager
def _running(folder: Path, provider: RunningSimulator, **options) -> Iterator[Stack]:
    described = simulated_upstreams(provider.base_url)
    closes = {
        "upstream_model": "sim-small",
        "vocabulary": "o200k_base",
        "output_tokens_max": 16_384,
        "on_disconnect": "cancel",
        "abort_tail_tokens": ABORT_TAIL_TOKENS,
    }
    described["upstreams"][0]["models"] += [
        {"name": CANCELLED, **closes},
        {"name": HIDDEN, **closes, "all_tokens_visible": False},
    ]
    path = folder / "own-upstreams.json"
    path.write_text(json.dumps(described))
    limits = {"drain_timeout_s": 20, "slow_reader_timeout_s": 1}
    with running_stack(folder, provider, upstreams_file=path, **limits, **options) as running:
        yield running


@pytest.fixture
def provider(tailing_provider: RunningSimulator) -> RunningSimulator:
    tailing_provider.reset()
    return tailing_provider


@pytest.fixture
def stack(left_installation: Stack, request: pytest.FixtureRequest) -> Stack:
    return left_installation.tenant(f"org-{abs(hash(request.node.nodeid))}")


@pytest.fixture
def impatient(stack: Stack) -> Iterator[Stack]:
    """The same installation, which now reads on for a fifth of a second only."""
    relay = stack.comptroller.proxy._chat._relay
    patient = relay._settings
    relay._settings = replace(patient, drain_timeout_s=0.2)
    yield stack
    relay._settings = patient


class Caller:
    """A client that holds its end of the connection in its own hands."""

    def __init__(self, stack: Stack, *, receive_bytes: int | None = None) -> None:
        self._secret = stack.key()[1]
        self._socket = socket.socket()
        if receive_bytes is not None:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        self._socket.settimeout(30)
        self._socket.connect(("127.0.0.1", int(stack.address.rsplit(":", 1)[1])))
        self.received = b""

    def ask(self, directive: str, **fields) -> None:
        content = json.dumps(body(directive, **fields)).encode()
        head = (
            "POST /v1/chat/completions HTTP/1.1\r\nhost: comptroller\r\n"
            f"authorization: Bearer {self._secret}\r\ncontent-type: application/json\r\n"
            f"content-length: {len(content)}\r\n\r\n"
        )
        self._socket.sendall(head.encode() + content)

    def read_until(self, what: bytes) -> None:
        """Read until something has come; fails when the connection ends before."""
        while what not in self.received:
            piece = self._socket.recv(65_536)
            assert piece, self.received
            self.received += piece

    def leave(self, how: str) -> None:
        if how == "half_close":
            self._socket.shutdown(socket.SHUT_WR)
            return
        if how == "reset":
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        self._socket.close()

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def caller(stack: Stack) -> Iterator[Caller]:
    made = Caller(stack)
    yield made
    made.close()


@pytest.fixture
def deaf_caller(stack: Stack) -> Iterator[Caller]:
    """A caller who takes next to nothing of what it is sent."""
    made = Caller(stack, receive_bytes=4096)
    yield made
    made.close()


def _the_record_of_one_who_left(stack: Stack, provider: RunningSimulator) -> DecisionRow:
    record = the_record(stack, provider)
    assert record.client_disconnected
    return record


LEAVING = ["close", "reset", "half_close"]


@pytest.mark.parametrize("model", [DRAINED, CANCELLED])
@pytest.mark.parametrize("how", LEAVING)
def test_a_document_is_read_to_its_end_and_booked_exactly(
    stack: Stack, provider: RunningSimulator, caller: Caller, model: str, how: str
) -> None:
    # Closing a connection does not stop what is generated in one piece, so it is not closed.
    caller.ask("output=20 latency_ms=1300", model=model)
    _until_asked(provider)
    caller.leave(how)
    record = _the_record_of_one_who_left(stack, provider)
    assert (record.decision, record.code, record.upstream_status) == ("allowed", None, 200)
    assert (record.usage_source, record.output_tokens) == ("provider", 20)
    answers_well(stack, provider)


def test_a_document_whose_caller_leaves_at_once_is_booked_exactly(
    stack: Stack, provider: RunningSimulator, caller: Caller
) -> None:
    caller.ask("output=20 latency_ms=200")
    _until_asked(provider)
    caller.leave("close")
    record = the_record(stack, provider)
    assert (record.decision, record.usage_source) == ("allowed", "provider")
    answers_well(stack, provider)


@pytest.mark.parametrize("how", LEAVING)
def test_before_its_first_byte_a_stream_is_read_on(
    stack: Stack, provider: RunningSimulator, caller: Caller, how: str
) -> None:
    caller.ask("output=20 latency_ms=300", stream=True)
    _until_asked(provider)
    caller.leave(how)
    record = _the_record_of_one_who_left(stack, provider)
    assert (record.decision, record.http_status) == ("allowed", 200)
    assert (record.usage_source, record.output_tokens) == ("provider", 20)
    answers_well(stack, provider)


@pytest.mark.parametrize("how", LEAVING)
def test_before_its_first_byte_a_stream_that_is_closed_costs_what_was_held(
    stack: Stack, provider: RunningSimulator, caller: Caller, how: str
) -> None:
    caller.ask("output=20 latency_ms=1500", stream=True, model=CANCELLED)
    _until_asked(provider)
    caller.leave(how)
    record = _the_record_of_one_who_left(stack, provider)
    assert (record.decision, record.upstream_status) == ("allowed", None)
    assert (record.usage_source, record.charge_nanos) == ("held", record.held_nanos)
    answers_well(stack, provider)


@pytest.mark.parametrize("how", LEAVING)
def test_in_its_middle_a_stream_is_read_on_for_its_usage(
    stack: Stack, provider: RunningSimulator, caller: Caller, how: str
) -> None:
    caller.ask("output=40 pace=100", stream=True, max_tokens=40)
    caller.read_until(b'"content":" ')
    caller.leave(how)
    record = _the_record_of_one_who_left(stack, provider)
    assert (record.decision, record.code, record.http_status) == ("allowed", None, 200)
    assert (record.usage_source, record.output_tokens) == ("provider", 40)
    assert provider.bill()["completion_tokens"] == 40
    answers_well(stack, provider)


@pytest.mark.parametrize("how", LEAVING)
def test_in_its_middle_a_stream_that_is_closed_costs_our_count_and_the_tail(
    stack: Stack, provider: RunningSimulator, caller: Caller, how: str
) -> None:
    caller.ask("output=400 pace=100", stream=True, model=CANCELLED, max_tokens=400)
    caller.read_until(b'"content":" ')
    caller.leave(how)
    record = _the_record_of_one_who_left(stack, provider)
    billed_tokens = bill_at_rest(provider)["completion_tokens"]
    assert record.usage_source == "own_count"
    assert ABORT_TAIL_TOKENS < billed_tokens <= record.output_tokens < 400
    assert record.charge_nanos < record.held_nanos
    answers_well(stack, provider)


def test_in_its_middle_a_stream_of_hidden_tokens_costs_what_was_held(
    stack: Stack, provider: RunningSimulator, caller: Caller
) -> None:
    caller.ask("output=400 pace=100", stream=True, model=HIDDEN, max_tokens=400)
    caller.read_until(b'"content":" ')
    caller.leave("close")
    record = _the_record_of_one_who_left(stack, provider)
    assert (record.usage_source, record.charge_nanos) == ("held", record.held_nanos)


@pytest.mark.parametrize("model", [DRAINED, CANCELLED])
@pytest.mark.parametrize("how", LEAVING)
def test_at_its_last_event_a_stream_is_booked_exactly(
    stack: Stack, provider: RunningSimulator, caller: Caller, model: str, how: str
) -> None:
    caller.ask("output=20 pace=200", stream=True, model=model)
    caller.read_until(b"[DONE]")
    caller.leave(how)
    record = the_record(stack, provider)
    assert (record.decision, record.usage_source) == ("allowed", "provider")
    assert record.output_tokens == 20
    answers_well(stack, provider)


def test_a_stream_that_is_never_over_is_not_read_for_ever(
    impatient: Stack, provider: RunningSimulator, caller: Caller
) -> None:
    caller.ask("output=4000 pace=50", stream=True, max_tokens=4000)
    caller.read_until(b'"content":" ')
    caller.leave("close")
    record = _the_record_of_one_who_left(impatient, provider)
    # A provider that is not known to stop bills what it goes on to generate.
    assert (record.usage_source, record.charge_nanos) == ("held", record.held_nanos)
    answers_well(impatient, provider)


def test_a_document_that_never_comes_is_not_waited_for_for_ever(
    impatient: Stack, provider: RunningSimulator, caller: Caller
) -> None:
    caller.ask("output=20 fault=stall_before_head")
    _until_asked(provider)
    caller.leave("close")
    record = _the_record_of_one_who_left(impatient, provider)
    assert (record.decision, record.upstream_status) == ("allowed", None)
    assert (record.usage_source, record.charge_nanos) == ("held", record.held_nanos)
    answers_well(impatient, provider)


@pytest.mark.parametrize("fault", ["reset_mid_answer", "bad_json", "end_mid_answer"])
def test_a_provider_that_fails_after_the_caller_left_is_recorded_as_both(
    stack: Stack, provider: RunningSimulator, caller: Caller, fault: str
) -> None:
    caller.ask(f"output=40 pace=50 fault={fault} after_chunks=30", stream=True, max_tokens=40)
    caller.read_until(b'"content":" ')
    caller.leave("close")
    until_settled(stack)
    [record] = stack.records()
    assert record.client_disconnected
    assert (record.decision, record.code is not None) == ("failed", True)
    assert record.charge_nanos > 0
    answers_well(stack, provider)


def test_a_caller_who_reads_nothing_is_cut_off_and_the_stream_booked_exactly(
    stack: Stack, provider: RunningSimulator, deaf_caller: Caller
) -> None:
    # Far more than all buffers on the way hold.
    deaf_caller.ask("output=16000", stream=True, model="sim-flat-0.05", max_tokens=16_000, n=5)
    record = _the_record_of_one_who_left(stack, provider)
    assert (record.decision, record.usage_source) == ("allowed", "provider")
    assert (record.output_tokens, record.charge_nanos) == (80_000, 50_000_000)
    answers_well(stack, provider)


def test_what_was_generated_for_a_caller_who_reads_nothing_is_counted_before_the_stream_is_closed(
    stack: Stack, provider: RunningSimulator, deaf_caller: Caller
) -> None:
    # The provider has to wait for us, with megabytes of the stream in buffers on the way.
    deaf_caller.ask("output=16000", stream=True, model=CANCELLED, max_tokens=16_000, n=4)
    record = _the_record_of_one_who_left(stack, provider)
    assert 1_000 < bill_at_rest(provider)["completion_tokens"] <= record.output_tokens
    answers_well(stack, provider)


def test_the_sdk_hangs_up(stack: Stack, provider: RunningSimulator) -> None:
    client = openai.OpenAI(base_url=stack.base_url, api_key=stack.key()[1])
    asked = body("output=40 pace=100", stream=True, max_tokens=40)
    with client.chat.completions.create(**asked) as stream:
        next(iter(stream))
    record = _the_record_of_one_who_left(stack, provider)
    assert (record.usage_source, record.output_tokens) == ("provider", 40)


def test_a_stream_that_ignores_its_cap_is_cut_and_booked_at_what_came(
    stack: Stack, provider: RunningSimulator
) -> None:
    # Slow enough that a busy machine hears of the abort within the tail that is booked.
    asked = "output=5000 pace=50 fault=ignored_cap"
    answer = ask(stack, asked, stream=True, model=CANCELLED)
    assert last_error(answer.content)["code"] == "stream_cut_by_limit"
    until_settled(stack)
    [record] = stack.records()
    assert (record.decision, record.usage_source) == ("failed", "own_count")
    # What came beyond the bound is charged, and not passed on.
    pieces = answer.content.count(b'"content":" ')
    assert pieces <= 20 < record.output_tokens
    error = last_error(answer.content)
    assert error["charged"] == format_money(record.charge_nanos)
    assert error["currency"] == "USD"
    bill = bill_at_rest(provider)
    assert 20 < bill["completion_tokens"] <= record.output_tokens
    [entry] = stack.ledger()
    assert entry.charge_nanos == record.charge_nanos >= bill["total_nanos"]


def test_a_stream_beyond_its_bound_that_is_billed_on_is_read_to_its_end_and_booked_exactly(
    stack: Stack, provider: RunningSimulator
) -> None:
    asked = "output=60 pace=200 fault=ignored_cap"
    answer = ask(stack, asked, stream=True, model=DRAINED)
    error = last_error(answer.content)
    assert error["code"] == "stream_cut_by_limit"
    assert answer.content.count(b'"content":" ') <= 20
    record = the_record(stack, provider)
    assert (record.usage_source, record.output_tokens) == ("provider", 60)
    assert error["charged"] == format_money(record.charge_nanos)
    assert record.charge_nanos == bill_at_rest(provider)["total_nanos"]


# The server leaves.


@pytest.fixture
def closing(tmp_path: Path, provider: RunningSimulator) -> Iterator[Stack]:
    """An installation of its own, which a test may shut down; it gives nobody much time."""
    with _running(tmp_path, provider, shutdown_grace_s=0.3) as running:
        yield running


def test_a_shutdown_ends_what_takes_too_long_and_books_it_before_it_is_over(
    closing: Stack, provider: RunningSimulator, tmp_path: Path
) -> None:
    answers: dict[str, httpx.Response] = {}
    asked = {
        "short": body("output=20 pace=200", stream=True),
        "stream": body("output=400 pace=50", stream=True, model=CANCELLED, max_tokens=400),
        "document": body("output=20 fault=stall_before_head"),
    }
    secret = closing.key()[1]

    def ask_one(name: str) -> None:
        address = f"{closing.base_url}/chat/completions"
        answers[name] = httpx.post(address, json=asked[name], headers=headers(secret), timeout=30)

    threads = [threading.Thread(target=ask_one, args=(name,)) for name in asked]
    for thread in threads:
        thread.start()
    _until_asked(provider, 3)
    closing.run(closing.comptroller.stop)
    rows = _rows(tmp_path / "comptroller.sqlite3")
    assert closing.open_reservations() == 0
    for thread in threads:
        thread.join()

    assert events(answers["short"].content)[-1] == b"[DONE]"
    error = last_error(answers["stream"].content)
    assert (answers["stream"].status_code, error["code"]) == (200, "server_shutting_down")
    assert answers["document"].status_code == 503
    assert answers["document"].json()["error"]["code"] == "server_shutting_down"
    # It may have been billed: repeating it would pay twice.
    assert answers["document"].headers["x-should-retry"] == "false"
    assert sorted((row[0], row[1]) for row in rows) == [
        ("allowed", "provider"),
        ("failed", "held"),
        ("failed", "own_count"),
    ]
    assert {row[2] for row in rows if row[0] == "failed"} == {"server_shutting_down"}
    assert all(row[3] == row[4] > 0 for row in rows)


def test_after_a_shutdown_has_begun_nothing_is_sent(
    closing: Stack, provider: RunningSimulator
) -> None:
    secret = closing.key()[1]
    closing.run(closing.comptroller.proxy.stop)
    answer = ask(closing, secret=secret)
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "server_shutting_down")
    assert (answer.headers["x-should-retry"], answer.headers["retry-after"]) == ("true", "1")
    record = the_record(closing, provider)
    assert (record.usage_source, record.upstream_status) == ("none", None)
    assert provider.requests() == []


def _rows(path: Path) -> list[tuple[str, str, str | None, int, int]]:
    query = """SELECT decision, record.usage_source, code, record.charge_nanos, entry.charge_nanos
        FROM decision_records record JOIN ledger_entries entry ON entry.id = record.id"""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        return connection.execute(query).fetchall()


def _until_asked(provider: RunningSimulator, count: int = 1) -> None:
    """Wait until the provider has so many requests; the test's time-out is the bound."""
    while len(provider.requests()) < count:
        pass
