"""The operator's own prices."""

from dataclasses import replace

import pytest

from controlplane.errors import InvalidInput
from controlplane.pricing.entry import DatedPrice
from controlplane.pricing.override import PriceOverride, compile_override, compile_overrides

FLAT = PriceOverride("own", "flat", request="0.05")
TOKENS = PriceOverride("own", "tokens", input_per_million="0.15", output_per_million="0.60")


def test_a_flat_price_is_kept_for_each_request() -> None:
    assert compile_override(FLAT).prices == (DatedPrice({"requests": 50_000_000_000}),)


def test_token_prices_are_kept_for_each_token() -> None:
    cached = replace(TOKENS, cache_read_per_million="0.075", cache_write_per_million="0.2")
    assert compile_override(cached).prices == (
        DatedPrice(
            {
                "input_tokens": 150_000,
                "output_tokens": 600_000,
                "cache_read_tokens": 75_000,
                "cache_write_tokens": 200_000,
            }
        ),
    )


def test_a_model_that_costs_nothing_says_so() -> None:
    free = replace(TOKENS, input_per_million="0", output_per_million="0", context_window=8192)
    entry = compile_override(free)
    assert entry.prices == (DatedPrice({"input_tokens": 0, "output_tokens": 0}),)
    assert entry.context_window == 8192


@pytest.mark.parametrize(
    ("override", "field"),
    [
        (PriceOverride("own", "none"), "request"),
        (PriceOverride("own", "in", input_per_million="1"), "input_per_million"),
        (PriceOverride("own", "out", output_per_million="1"), "input_per_million"),
        (replace(FLAT, cache_read_per_million="1"), "input_per_million"),
        (replace(FLAT, request="-1"), "request"),
        (replace(TOKENS, output_per_million="0.6 USD"), "output_per_million"),
        (replace(TOKENS, cache_write_per_million="x"), "cache_write_per_million"),
        (replace(FLAT, provider=""), "provider"),
        (replace(FLAT, model="m" * 201), "model"),
        (replace(FLAT, context_window=-1), "context_window"),
        (replace(FLAT, context_window=2**40 + 1), "context_window"),
    ],
)
def test_an_incomplete_or_malformed_price_is_refused_by_field(
    override: PriceOverride, field: str
) -> None:
    with pytest.raises(InvalidInput) as refused:
        compile_override(override)
    assert refused.value.field == (field,)


def test_a_model_priced_twice_is_refused() -> None:
    with pytest.raises(InvalidInput, match="priced twice"):
        compile_overrides([FLAT, TOKENS, FLAT])


def test_more_prices_than_the_limit_are_refused() -> None:
    with pytest.raises(InvalidInput, match="10000"):
        compile_overrides([FLAT] * 10_001)
