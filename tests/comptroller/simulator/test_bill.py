"""The bill is exact, at every instant and for every way an answer can end."""

import asyncio
from fractions import Fraction
from math import ceil
from typing import Any

import httpx
import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st

from comptroller.simulator import RunningSimulator, SimulatorSettings, simulator
from comptroller.simulator.billing import amount_nanos, amount_text
from comptroller.simulator.models import Catalogue, Model, exact_picos, token_priced
from controlplane.clock import ManualClock

tokens = st.integers(0, 1 << 40)


def body(content: str, model: str = "gpt-4o", **fields: object) -> dict[str, object]:
    return {"model": model, "messages": [{"role": "user", "content": content}], **fields}


@given(
    input_price=st.decimals(0, 1000, places=6),
    output_price=st.decimals(0, 1000, places=6),
    prompt=tokens,
    completion=tokens,
)
def test_a_cost_is_the_exact_sum_rounded_up_once(
    input_price: object, output_price: object, prompt: int, completion: int
) -> None:
    model = token_priced("any", str(input_price), str(output_price))
    dollars = (
        prompt * Fraction(str(input_price)) + completion * Fraction(str(output_price))
    ) / 10**6
    assert model.cost_nanos(prompt, completion) == ceil(dollars * 10**9)


def test_a_price_finer_than_a_pico_dollar_a_token_is_refused() -> None:
    assert exact_picos("0.000001", 10**6) == 1
    with pytest.raises(ValueError, match="whole, positive"):
        exact_picos("0.0000001", 10**6)


@given(st.integers(0, 1 << 62))
def test_amounts_are_written_and_read_exactly(nanos: int) -> None:
    assert amount_nanos(amount_text(nanos)) == nanos


@pytest.mark.parametrize("text", ["", "one", "-1", "NaN", "Infinity", "0.0000000001"])
def test_an_amount_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not an amount"):
        amount_nanos(text)


def test_a_flat_model_exists_for_every_amount() -> None:
    catalogue = Catalogue(())
    assert catalogue.find("sim-flat-0.05") == Model("sim-flat-0.05", request_price_picos=5 * 10**10)
    assert catalogue.find("sim-flat-12.000000001").cost_nanos(9, 9) == 12_000_000_001
    assert catalogue.find("sim-flat-") is None
    assert catalogue.find("sim-flat-0.0000000001") is None


async def test_two_hundred_flat_requests_at_once_are_all_on_the_bill(
    http: httpx.AsyncClient, running: RunningSimulator
) -> None:
    asked = body("[[sim output=1 latency_ms=50]]", "sim-flat-0.05")
    posts = (http.post("/v1/chat/completions", json=asked) for _ in range(200))
    answers = await asyncio.gather(*posts)
    assert {answer.status_code for answer in answers} == {200}
    bill = running.bill()
    assert (bill["total"], bill["total_nanos"], bill["requests"]) == ("10.00", 10 * 10**9, 200)
    assert 1 < bill["open_requests_high_water"] <= 100  # httpx opens at most 100 connections
    assert bill["open_requests"] == 0


async def test_the_bill_is_kept_by_model_and_by_request_id(
    http: httpx.AsyncClient, running: RunningSimulator
) -> None:
    for model, request_id in (("gpt-4o", "a"), ("gpt-4o-mini", "a"), ("gpt-4o", "b")):
        await http.post(
            "/v1/chat/completions",
            json=body("hello", model, max_tokens=10),
            headers={"x-client-request-id": request_id},
        )
    bill = (await http.get("/_simulator/bill")).json()
    # 8 in and 10 out: 8 x 2.50 + 10 x 10.00, and 8 x 0.15 + 10 x 0.60, dollars a million.
    assert bill["by_model"]["gpt-4o"]["nanos"] == 2 * 120_000
    assert bill["by_model"]["gpt-4o-mini"]["amount"] == "0.0000072"
    assert bill["by_request"]["a"] == {
        "requests": 2,
        "prompt_tokens": 16,
        "completion_tokens": 20,
        "nanos": 127_200,
        "amount": "0.0001272",
    }
    assert bill["by_request"]["b"]["nanos"] == 120_000
    assert bill["total_nanos"] == bill["high_water_nanos"] == 247_200
    assert bill == running.bill()


async def test_an_aborted_stream_is_billed_up_to_the_abort_and_its_tail(
    http: httpx.AsyncClient, running: RunningSimulator
) -> None:
    asked = body("[[sim output=100 fault=stall_mid_answer after_chunks=5]]", stream=True)
    read = 0
    async with http.stream("POST", "/v1/chat/completions", json=asked) as answer:
        async for line in answer.aiter_lines():
            read += '"content":" ' in line
            if read == 5:
                break
    await running.idle()
    assert running.bill()["completion_tokens"] == 5 + 3  # the fixture's abort_tail_tokens
    assert running.bill()["open_requests"] == 0
    assert running.requests()[0]["is_left"]


async def test_a_tail_is_never_longer_than_the_answer(
    http: httpx.AsyncClient, running: RunningSimulator
) -> None:
    asked = body("[[sim output=6 fault=stall_mid_answer after_chunks=5]]", stream=True)
    async with http.stream("POST", "/v1/chat/completions", json=asked) as answer:
        async for line in answer.aiter_lines():
            if '"content":" ' in line:
                break
    await running.idle()
    assert running.bill()["completion_tokens"] == 6


async def test_generation_goes_on_until_the_abort_is_noticed() -> None:
    settings = SimulatorSettings(notice_ms=400, pace=1000)
    async with simulator(settings) as running, httpx.AsyncClient(verify=False, timeout=60) as http:
        url = f"{running.base_url}/chat/completions"
        asked = body("[[sim output=100000 fault=stall_mid_answer after_chunks=5]]", stream=True)
        asked["model"] = "gpt-4.1"
        async with http.stream("POST", url, json=asked) as answer:
            async for line in answer.aiter_lines():
                if '"content":" ' in line:
                    break
        await running.idle()
        assert 5 < running.bill()["completion_tokens"] < 32_768


async def test_a_document_is_billed_in_full_though_its_client_left(
    http: httpx.AsyncClient, running: RunningSimulator, leave: Any
) -> None:
    asked = body("[[sim output=20 fault=stall_before_head]]")
    await leave(http.post("/v1/chat/completions", json=asked))
    assert running.bill()["completion_tokens"] == 20
    assert running.requests()[0]["is_left"]


async def test_the_running_total_passing_what_was_asserted_is_recorded(
    clock: ManualClock,
) -> None:
    async with (
        simulator(clock=clock) as running,
        httpx.AsyncClient(base_url=running.address, verify=False) as http,
    ):
        asserted = await http.post("/_simulator/bill/assert", json={"max": "0.10"})
        assert asserted.json()["asserted_max"] == "0.10"
        for number in range(3):
            assert running.bill()["violation_count"] == 0
            clock.advance_ns(10**9)
            await http.post(
                "/v1/chat/completions",
                json=body("hello", "sim-flat-0.05"),
                headers={"x-client-request-id": f"request {number}"},
            )
        assert running.bill()["violation_count"] == 1
        assert running.bill()["violations"] == [
            {
                "at": "2026-03-14T09:26:56+00:00",
                "total": "0.15",
                "total_nanos": 150_000_000,
                "max_nanos": 100_000_000,
                "request_id": "request 2",
            }
        ]


async def test_a_stream_is_one_violation_at_the_token_that_passes(
    http: httpx.AsyncClient, running: RunningSimulator
) -> None:
    running.assert_max("0.0001")
    # 8 tokens in are 0.00002, each token out 0.00001: the ninth passes.
    await http.post("/v1/chat/completions", json=body("hello", stream=True, max_tokens=50))
    assert running.bill()["violation_count"] == 1
    assert running.bill()["violations"][0]["total"] == "0.00011"


async def test_an_assertion_that_is_broken_already_is_a_violation_at_once(
    http: httpx.AsyncClient, running: RunningSimulator
) -> None:
    await http.post("/v1/chat/completions", json=body("hello", "sim-flat-0.05"))
    running.assert_max("0.05")
    assert running.bill()["violation_count"] == 0
    running.assert_max("0.049999999")
    assert running.bill()["violations"][0]["request_id"] is None


async def test_an_assertion_without_an_amount_is_refused(http: httpx.AsyncClient) -> None:
    for document in ({}, {"max": 1.5}, {"max": "much"}):
        answer = await http.post("/_simulator/bill/assert", json=document)
        assert answer.status_code == 400
    assert (await http.get("/_simulator/bill")).json()["asserted_max"] is None


async def test_reset_starts_a_new_bill_that_older_answers_do_not_touch(
    http: httpx.AsyncClient, running: RunningSimulator
) -> None:
    asked = body("[[sim output=50 fault=stall_mid_answer after_chunks=1]]", stream=True)
    async with http.stream("POST", "/v1/chat/completions", json=asked) as answer:
        await anext(answer.aiter_lines())
        assert (await http.post("/_simulator/reset")).json()["total"] == "0.00"
    bill = (await http.get("/_simulator/bill?when=idle")).json()
    assert (bill["total_nanos"], bill["requests"], bill["by_model"]) == (0, 0, {})
    assert running.requests() == []


async def test_the_bill_can_be_waited_for_until_nothing_is_open(
    http: httpx.AsyncClient, running: RunningSimulator, sdk: openai.AsyncOpenAI
) -> None:
    message = {"role": "user", "content": "[[sim output=5 latency_ms=100]]"}
    asked = asyncio.create_task(sdk.chat.completions.create(model="gpt-4o", messages=[message]))
    await running.generating(1)
    assert (await http.get("/_simulator/bill")).json()["open_requests"] == 1
    bill = (await http.get("/_simulator/bill?when=idle")).json()
    assert (bill["open_requests"], bill["completion_tokens"]) == (0, 5)
    await asked
