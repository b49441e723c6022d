"""What a provider does wrong: the caller is told, the money is booked, nothing stays held."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import openai
import pytest

from comptroller.demo import simulated_upstreams
from comptroller.simulator.faults import Fault
from comptroller.simulator.running import RunningSimulator, simulator_in_thread
from comptroller.simulator.settings import SimulatorSettings
from tests.proxy.asking import (
    answers_well,
    ask,
    body,
    events,
    forget_connections,
    last_error,
    pool,
    the_record,
    until_settled,
)
from tests.stack import Stack, running_stack

ANSWER_BYTES_MAX = 200_000
HELD, OWN, PROVIDER, NONE = "held", "own_count", "provider", "none"


@pytest.fixture(scope="module")
def bad_provider() -> Iterator[RunningSimulator]:
    with simulator_in_thread(SimulatorSettings()) as running:
        yield running


@pytest.fixture(scope="module")
def impatient(
    tmp_path_factory: pytest.TempPathFactory, bad_provider: RunningSimulator
) -> Iterator[Stack]:
    """An installation that waits a second for a head, and less for the rest of an answer."""
    folder = tmp_path_factory.mktemp("impatient")
    limits = {"head_timeout_s": 1, "answer_bytes_max": ANSWER_BYTES_MAX}
    described = simulated_upstreams(bad_provider.base_url)
    described["upstreams"][0]["silence_timeout_s"] = 0.5
    path = folder / "own-upstreams.json"
    path.write_text(json.dumps(described))
    with running_stack(
        folder, bad_provider, organization=False, upstreams_file=path, **limits
    ) as running:
        yield running


@pytest.fixture
def provider(bad_provider: RunningSimulator) -> RunningSimulator:
    bad_provider.reset()
    return bad_provider


@pytest.fixture
def stack(impatient: Stack, request: pytest.FixtureRequest) -> Stack:
    tenant = impatient.tenant(f"org-{abs(hash(request.node.nodeid))}")
    forget_connections(tenant)
    return tenant


# fault, status and code the caller sees, x-should-retry, retry-after, status of the provider
REFUSALS = [
    ("server_error", 502, "upstream_error", "false", None, 500),
    ("unavailable retry_after_s=2", 502, "upstream_error", "false", None, 503),
    ("server_error gzip=true", 502, "upstream_error", "false", None, 500),
    ("server_error html=true", 502, "upstream_error", "false", None, 500),
    ("unauthorized", 502, "upstream_auth_failed", "false", None, 401),
    ("status status=402", 502, "upstream_auth_failed", "false", None, 402),
    ("status status=403", 502, "upstream_auth_failed", "false", None, 403),
    ("redirect", 502, "upstream_bad_response", "false", None, 307),
    ("status status=304", 502, "upstream_bad_response", "false", None, 304),
    ("status status=400", 400, "status", "false", None, 400),
    ("status status=404", 404, "status", "false", None, 404),
    ("status status=418", 418, "status", "false", None, 418),
    ("status status=400 html=true", 400, "upstream_refused", "false", None, 400),
    ("status status=400 gzip=true", 400, "upstream_refused", "false", None, 400),
    ("rate_limited", 429, "rate_limited", "true", "1", 429),
    ("rate_limited retry_after_s=7", 429, "rate_limited", "true", "7", 429),
    ("rate_limited retry_after_s=61", 429, "rate_limited", "false", "61", 429),
    ("rate_limited html=true", 429, "upstream_rate_limited", "true", "1", 429),
]


@pytest.mark.parametrize("stream", [False, True], ids=["json", "stream"])
@pytest.mark.parametrize(
    ("fault", "status", "code", "retry", "retry_after", "upstream_status"),
    REFUSALS,
    ids=[each[0].replace(" ", "-") for each in REFUSALS],
)
def test_an_error_of_the_provider_costs_nothing(
    stack: Stack,
    provider: RunningSimulator,
    fault: str,
    status: int,
    code: str,
    retry: str,
    retry_after: str | None,
    upstream_status: int,
    stream: bool,
) -> None:
    answer = ask(stack, f"fault={fault}", stream=stream)
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-should-retry"] == retry
    assert answer.headers.get("retry-after") == retry_after
    assert answer.headers["x-request-id"].startswith("req_")
    assert "location" not in answer.headers
    record = the_record(stack, provider)
    assert (record.decision, record.http_status) == ("failed", status)
    passed_on = {400: "upstream_refused", 404: "upstream_refused", 418: "upstream_refused"}
    assert record.code == {**passed_on, 429: "upstream_rate_limited"}.get(status, code)
    assert (record.upstream_status, record.streamed) == (upstream_status, stream)
    assert (record.usage_source, record.charge_nanos) == (NONE, 0)
    # Their answers are whole; only those that were not read are still on their way.
    assert pool(stack).connections_open == pool(stack).connections_idle <= 1
    answers_well(stack, provider)


def test_an_error_that_comes_as_an_answer_costs_nothing(
    stack: Stack, provider: RunningSimulator
) -> None:
    answer = ask(stack, "fault=error_as_answer")
    assert (answer.status_code, answer.json()["error"]["code"]) == (502, "upstream_error")
    assert answer.headers["x-should-retry"] == "false"
    record = the_record(stack, provider)
    assert (record.decision, record.code, record.upstream_status) == (
        "failed",
        "upstream_error",
        200,
    )
    assert (record.usage_source, record.charge_nanos) == (NONE, 0)
    answers_well(stack, provider)


# Nothing of what was generated was seen, so that what was held stands.
LOST_ANSWERS = [
    ("reset_before_head", 502, "upstream_error", None),
    ("reset_before_head billed=true", 502, "upstream_error", None),
    ("stall_before_head", 504, "upstream_timeout", None),
    ("reset_mid_answer after_chunks=20", 502, "upstream_error", 200),
    ("close_mid_answer after_chunks=20", 502, "upstream_error", 200),
    ("end_mid_answer after_chunks=20", 502, "upstream_bad_response", 200),
    ("stall_mid_answer after_chunks=20", 504, "upstream_timeout", 200),
    ("bad_json", 502, "upstream_bad_response", 200),
    ("invalid_utf8", 502, "upstream_bad_response", 200),
    ("gzip", 502, "upstream_bad_response", 200),
    ("huge_answer bytes=3000000", 502, "upstream_response_too_large", 200),
    ("long_line bytes=3000000", 502, "upstream_response_too_large", 200),
]


@pytest.mark.parametrize(
    ("fault", "status", "code", "upstream_status"),
    LOST_ANSWERS,
    ids=[each[0].replace(" ", "-") for each in LOST_ANSWERS],
)
def test_an_answer_that_is_lost_is_booked_at_what_was_held(
    stack: Stack,
    provider: RunningSimulator,
    fault: str,
    status: int,
    code: str,
    upstream_status: int | None,
) -> None:
    answer = ask(stack, f"fault={fault}")
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
    assert answer.headers["x-should-retry"] == "false"
    assert "retry-after" not in answer.headers
    record = the_record(stack, provider)
    assert (record.decision, record.code, record.http_status) == ("failed", code, status)
    assert record.upstream_status == upstream_status
    assert (record.usage_source, record.client_disconnected) == (HELD, False)
    assert record.charge_nanos == record.held_nanos > 0
    is_whole = fault in {"bad_json", "invalid_utf8", "end_mid_answer after_chunks=20", "gzip"}
    assert pool(stack).connections_open == pool(stack).connections_idle <= is_whole
    answers_well(stack, provider)


@pytest.mark.parametrize("fault", ["gzip", "wrong_content_type", "error_as_answer billed=true"])
def test_a_stream_that_is_none_is_booked_at_what_was_held(
    stack: Stack, provider: RunningSimulator, fault: str
) -> None:
    answer = ask(stack, f"output=20 fault={fault}", stream=True)
    assert (answer.status_code, answer.json()["error"]["code"]) == (502, "upstream_bad_response")
    assert answer.headers["x-should-retry"] == "false"
    record = the_record(stack, provider)
    assert (record.decision, record.code) == ("failed", "upstream_bad_response")
    assert (record.usage_source, record.charge_nanos) == (HELD, record.held_nanos)
    answers_well(stack, provider)


BROKEN_STREAMS = [
    ("reset_mid_answer after_chunks=5", 502, "upstream_error"),
    ("close_mid_answer after_chunks=5", 502, "upstream_error"),
    ("stall_mid_answer after_chunks=5", 504, "upstream_timeout"),
    ("bad_json after_chunks=5", 502, "upstream_bad_response"),
    ("invalid_utf8 after_chunks=5", 502, "upstream_bad_response"),
    ("long_line bytes=3000000 after_chunks=5", 502, "upstream_response_too_large"),
]


@pytest.mark.parametrize(
    ("fault", "status", "code"),
    BROKEN_STREAMS,
    ids=[each[0].replace(" ", "-") for each in BROKEN_STREAMS],
)
def test_a_stream_that_breaks_off_ends_with_an_error(
    stack: Stack, provider: RunningSimulator, fault: str, status: int, code: str
) -> None:
    answer = ask(stack, f"output=20 pace=50 fault={fault}", stream=True)
    assert answer.status_code == 200
    error = last_error(answer.content)
    assert (error["code"], error["type"]) == (code, "api_error")
    # One event opens the choice, five bring text, one is the error; of the rest nothing is shown.
    assert len(events(answer.content)) == 7
    assert len(answer.content) < 10_000
    record = the_record(stack, provider)
    assert (record.decision, record.code, record.http_status) == ("failed", code, status)
    assert (record.upstream_status, record.streamed) == (200, True)
    # It may go on generating, and what stood in a frame that cannot be read was not counted.
    assert (record.usage_source, record.charge_nanos) == (HELD, record.held_nanos)
    assert pool(stack).connections_open == 0
    answers_well(stack, provider)


def test_a_stream_that_ends_too_early_ends_with_an_error_and_is_counted(
    stack: Stack, provider: RunningSimulator
) -> None:
    answer = ask(stack, "output=20 fault=end_mid_answer after_chunks=5", stream=True)
    assert last_error(answer.content)["code"] == "upstream_bad_response"
    record = the_record(stack, provider)
    assert (record.decision, record.code) == ("failed", "upstream_bad_response")
    assert (record.usage_source, record.output_tokens) == (OWN, 5)
    answers_well(stack, provider)


def test_an_error_of_the_provider_in_a_stream_is_passed_on_and_recorded(
    stack: Stack, provider: RunningSimulator
) -> None:
    answer = ask(stack, "output=20 fault=error_mid_stream after_chunks=5", stream=True)
    assert last_error(answer.content)["code"] == "server_error"
    record = the_record(stack, provider)
    assert (record.decision, record.code, record.http_status) == ("failed", "upstream_error", 502)
    assert (record.usage_source, record.output_tokens) == (OWN, 5)
    assert pool(stack).connections_idle == 1
    answers_well(stack, provider)


@pytest.mark.parametrize(
    "fault",
    [
        *("reset_mid_answer", "close_mid_answer", "end_mid_answer", "stall_mid_answer"),
        *("error_mid_stream", "bad_json", "invalid_utf8", "long_line bytes=3000000"),
    ],
)
def test_the_sdk_raises_on_a_stream_that_breaks_off(stack: Stack, fault: str) -> None:
    client = openai.OpenAI(base_url=stack.base_url, api_key=stack.key()[1], max_retries=2)
    stream = client.chat.completions.create(**body(f"output=20 pace=50 fault={fault}", stream=True))
    seen = []
    with pytest.raises(openai.APIError):
        seen.extend(stream)
    assert seen
    until_settled(stack)
    assert len(stack.records()) == 1


@pytest.mark.parametrize("stream", [False, True], ids=["json", "stream"])
@pytest.mark.parametrize(
    ("fault", "raised"),
    [
        ("server_error", openai.InternalServerError),
        ("unauthorized", openai.InternalServerError),
        ("status status=400", openai.BadRequestError),
        ("status status=404", openai.NotFoundError),
        ("reset_before_head", openai.InternalServerError),
        ("stall_before_head", openai.InternalServerError),
        ("gzip", openai.InternalServerError),
    ],
)
def test_the_sdk_raises_once_and_does_not_pay_twice(
    stack: Stack,
    provider: RunningSimulator,
    fault: str,
    raised: type[openai.APIStatusError],
    stream: bool,
) -> None:
    client = openai.OpenAI(base_url=stack.base_url, api_key=stack.key()[1], max_retries=2)
    with pytest.raises(raised):
        client.chat.completions.create(**body(f"fault={fault}", stream=stream))
    the_record(stack, provider)
    assert len(provider.requests()) == 1


UNBELIEVABLE = [
    *("missing_usage", "negative_usage", "string_usage", "absurd_usage"),
    f"absurd_usage tokens={2**62}",
]


@pytest.mark.parametrize("stream", [False, True], ids=["json", "stream"])
@pytest.mark.parametrize("fault", UNBELIEVABLE)
def test_a_usage_that_cannot_be_believed_is_counted_by_ourselves(
    stack: Stack, provider: RunningSimulator, fault: str, stream: bool
) -> None:
    answer = ask(stack, f"output=20 fault={fault}", stream=stream)
    assert answer.status_code == 200
    record = the_record(stack, provider)
    assert (record.decision, record.code, record.http_status) == ("allowed", None, 200)
    assert (record.usage_source, record.output_tokens) == (OWN, 20)
    assert record.charge_nanos <= record.held_nanos
    answers_well(stack, provider)


@pytest.mark.parametrize("stream", [False, True], ids=["json", "stream"])
def test_a_usage_above_what_was_held_is_booked_in_full_and_flagged(
    stack: Stack, provider: RunningSimulator, stream: bool
) -> None:
    answer = ask(stack, "output=20 fault=impossible_usage tokens=100000", stream=stream)
    assert answer.status_code == 200
    record = the_record(stack, provider)
    # A hundred thousand input tokens at 0.15 per million, and 20 output tokens at 0.60.
    assert (record.usage_source, record.charge_nanos) == (PROVIDER, 15_012_000)
    [entry] = stack.ledger()
    assert entry.overrun_nanos == record.charge_nanos - record.held_nanos > 0
    assert record.charge_nanos == sum(entry.charge_nanos for entry in stack.ledger())


@pytest.mark.parametrize("stream", [False, True], ids=["json", "stream"])
def test_a_provider_that_ignores_the_cap_is_booked_in_full(
    stack: Stack, provider: RunningSimulator, stream: bool
) -> None:
    answer = ask(stack, "output=300 fault=ignored_cap", stream=stream)
    assert answer.status_code == 200
    record = the_record(stack, provider)
    assert (record.usage_source, record.output_tokens) == (PROVIDER, 300)
    assert provider.bill()["completion_tokens"] == 300
    [entry] = stack.ledger()
    assert entry.charge_nanos == provider.bill()["total_nanos"]
    assert entry.overrun_nanos == entry.charge_nanos - record.held_nanos > 0


HARMLESS = ["latency delay_ms=150", "split_utf8", "slow_drip delay_ms=1", "account_headers"]


@pytest.mark.parametrize("stream", [False, True], ids=["json", "stream"])
@pytest.mark.parametrize("fault", HARMLESS)
def test_what_does_no_harm_changes_nothing(
    stack: Stack, provider: RunningSimulator, fault: str, stream: bool
) -> None:
    answer = ask(stack, f"output=4 fault={fault}", stream=stream)
    assert answer.status_code == 200
    record = the_record(stack, provider)
    assert (record.decision, record.usage_source, record.output_tokens) == ("allowed", PROVIDER, 4)
    # The last packet of a body may come after the last event.
    answers_well(stack, provider)
    assert pool(stack).connections_open == pool(stack).connections_idle == 1


@pytest.mark.parametrize(
    "fault", ["double_usage", "unfinished", "missing_done", "stall_after_done"]
)
def test_streams_of_careless_providers_are_passed_on_and_booked_exactly(
    stack: Stack, provider: RunningSimulator, fault: str
) -> None:
    answer = ask(stack, f"output=20 fault={fault}", stream=True)
    assert answer.status_code == 200
    assert (events(answer.content)[-1] == b"[DONE]") == (fault != "missing_done")
    assert b'"error"' not in answer.content
    record = the_record(stack, provider)
    assert (record.decision, record.code) == ("allowed", None)
    assert (record.usage_source, record.output_tokens) == (PROVIDER, 20)
    answers_well(stack, provider)


def test_a_document_of_the_wrong_kind_is_passed_on_if_it_can_be_read(
    stack: Stack, provider: RunningSimulator
) -> None:
    answer = ask(stack, "output=4 fault=wrong_content_type")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json")
    assert the_record(stack, provider).usage_source == PROVIDER


@pytest.mark.parametrize("stream", [False, True], ids=["json", "stream"])
def test_what_a_provider_says_of_the_account_is_kept_from_the_caller(
    stack: Stack, provider: RunningSimulator, stream: bool
) -> None:
    answer = ask(stack, "output=4 fault=account_headers", stream=stream)
    own = {"content-type", "content-length", "transfer-encoding", "date", "server", "cache-control"}
    assert {
        name for name in answer.headers if name not in own and not name.startswith("x-comptroller-")
    } == {"x-request-id"}
    assert answer.headers["x-request-id"].startswith("req_")
    the_record(stack, provider)


def test_a_usage_that_comes_before_the_rest_of_the_text_is_not_the_last_word(
    stack: Stack, provider: RunningSimulator
) -> None:
    answer = ask(stack, "output=20 fault=early_usage after_chunks=5", stream=True)
    assert events(answer.content)[-1] == b"[DONE]"
    record = the_record(stack, provider)
    assert (record.decision, record.usage_source, record.output_tokens) == ("allowed", OWN, 20)


def test_a_stream_that_swells_is_cut_at_its_bound_and_booked_exactly(
    stack: Stack, provider: RunningSimulator
) -> None:
    asked = "output=4 fault=huge_answer bytes=1073741824"
    answer = ask(stack, asked, stream=True)
    assert last_error(answer.content)["code"] == "stream_cut_by_limit"
    record = the_record(stack, provider)
    assert (record.decision, record.code, record.http_status) == (
        "failed",
        "stream_cut_by_limit",
        402,
    )
    assert record.usage_source == PROVIDER
    assert record.charge_nanos == provider.bill()["total_nanos"]
    answers_well(stack, provider)


def test_every_fault_there_is_has_a_test_here() -> None:
    source = Path(__file__).read_text()
    assert [fault for fault in Fault if str(fault) not in source] == []
