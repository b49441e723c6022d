"""Prices through the binding: argument forms and error codes."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from genai_prices.data_units import unit_data

from controlplane.pricing.override import PriceOverride
from controlplane.pricing.sheet import compile_sheet
from core_rs import EngineError, PriceSheet, Usage

AT_NS = int(datetime(2026, 1, 1, tzinfo=UTC).timestamp()) * 10**9
COUNT_MAX = 2**40


@pytest.fixture(scope="module")
def sheet() -> PriceSheet:
    tokens = PriceOverride(
        "own", "tokens", input_per_million="1", output_per_million="2", context_window=4096
    )
    return PriceSheet(compile_sheet([tokens], providers=()).json)


def test_a_usage_takes_every_reported_unit_of_the_catalogue() -> None:
    names = [name for name in unit_data if name != "requests"]
    counts = {name: position for position, name in enumerate(names, start=1)}
    usage = Usage(**counts)  # type: ignore[typeddict-item]
    assert list(usage.as_dict().items()) == list(counts.items())


def test_usages_are_values() -> None:
    usage = Usage(
        input_tokens=5,
        output_tokens=4,
        cache_read_tokens=3,
        cache_write_tokens=2,
        output_reasoning_tokens=1,
    )
    assert (usage.input_tokens, usage.output_tokens, usage.cache_read_tokens) == (5, 4, 3)
    assert (usage.cache_write_tokens, usage.output_reasoning_tokens) == (2, 1)
    assert usage == Usage(**usage.as_dict())  # type: ignore[typeddict-item]
    assert hash(usage) == hash(Usage(**usage.as_dict()))  # type: ignore[typeddict-item]
    assert usage != Usage(input_tokens=5)
    assert repr(Usage(input_tokens=5, output_tokens=0)) == "Usage(input_tokens=5)"
    with pytest.raises(AttributeError):
        usage.input_tokens = 6  # type: ignore[misc]


@pytest.mark.parametrize("name", ["requests", "prompt_tokens", ""])
def test_a_usage_of_another_unit_is_a_type_error(name: str) -> None:
    with pytest.raises(TypeError, match="no unit of usage"):
        Usage(**{name: 1})  # type: ignore[misc]


@pytest.mark.parametrize(
    ("count", "error"),
    [(-1, OverflowError), (2**64, OverflowError), (1.0, TypeError), ("1", TypeError)],
)
def test_a_count_that_is_no_count_is_refused(count: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        Usage(input_tokens=count)


def test_a_count_above_its_limit_has_a_code() -> None:
    assert Usage(input_tokens=COUNT_MAX).input_tokens == COUNT_MAX
    with pytest.raises(EngineError) as refused:
        Usage(input_tokens=COUNT_MAX + 1)
    assert refused.value.code == "count_out_of_range"


def test_cost_bound_and_what_fits_agree(sheet: PriceSheet) -> None:
    price = sheet.find("own", "tokens")
    assert price == 0
    assert (sheet.currency, len(sheet), sheet.context_window(price)) == ("USD", 1, 4096)
    assert sheet.input_tiers_cross(price, COUNT_MAX) is False
    assert sheet.cost(price, Usage(input_tokens=3, output_tokens=4), AT_NS) == 11_000
    assert sheet.bound(price, 3, 2, 2, AT_NS) == 11_000
    assert sheet.bound(price, 3, 2, 2, AT_NS, {"processing": "batch"}) == 11_000
    assert sheet.output_tokens_within(price, 11_000, 3, 2, AT_NS) == 2
    assert sheet.output_tokens_within(price, 2_999, 3, 2, AT_NS) is None


def test_failures_carry_stable_codes(sheet: PriceSheet) -> None:
    contradiction = Usage(input_tokens=1, cache_read_tokens=2)
    cached = PriceOverride(
        "own",
        "cached",
        input_per_million="1",
        output_per_million="1",
        cache_read_per_million="1",
    )
    other = PriceSheet(compile_sheet([cached], providers=()).json)
    failing = {
        "unknown_price": lambda: sheet.cost(1, Usage(), AT_NS),
        "contradictory_usage": lambda: other.cost(0, contradiction, AT_NS),
        "count_out_of_range": lambda: sheet.bound(0, 1, 1, 0, AT_NS),
        "invalid_price_sheet": lambda: PriceSheet(b"{}"),
    }
    for code, call in failing.items():
        with pytest.raises(EngineError) as refused:
            call()
        assert refused.value.code == code


def test_a_sheet_with_an_unknown_field_is_refused(sheet: PriceSheet) -> None:
    written = json.loads(compile_sheet(providers=()).json)
    assert len(PriceSheet(json.dumps(written).encode())) == 0
    with pytest.raises(EngineError, match="surprise"):
        PriceSheet(json.dumps(written | {"surprise": 1}).encode())


def test_the_rate_of_output_is_in_pico_units(sheet: PriceSheet) -> None:
    found = sheet.find("own", "tokens")
    assert found is not None
    assert sheet.output_picos(found, 10, AT_NS) == 2_000_000
    assert sheet.bound(found, 10, 7, 1, AT_NS) == sheet.bound(found, 10, 0, 1, AT_NS) + 7 * 2_000
    with pytest.raises(EngineError) as raised:
        sheet.output_picos(found, COUNT_MAX + 1, AT_NS)
    assert raised.value.code == "count_out_of_range"
