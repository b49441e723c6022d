"""Prices become whole pico units, rounded up once."""

from decimal import Decimal

import pytest

from controlplane.pricing.rate import PriceFormatError, parse_price, picos_per_unit


@pytest.mark.parametrize(
    ("text", "per", "picos"),
    [
        ("0.15", 10**6, 150_000),
        ("0", 10**6, 0),
        ("0.05", 1, 50_000_000_000),
        ("0.000001", 10**6, 1),
        ("0.0000001", 10**6, 1),
        ("0.0000011", 10**6, 2),
        ("1000000", 1, 10**18),
        ("0.000000000000000001", 1, 1),
    ],
)
def test_decimal_text_is_read_exactly_and_rounded_up(text: str, per: int, picos: int) -> None:
    assert parse_price(text, per) == picos


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            " 1",
            "1 ",
            "-1",
            "+1",
            "1e3",
            "1.",
            ".5",
            "NaN",
            "Infinity",
            "1_0",
            "1,5",
            "٣",
            "1\n",
        ),
        *("12345678", "0." + "1" * 19),
    ],
)
def test_other_text_is_no_price(text: str) -> None:
    with pytest.raises(PriceFormatError):
        parse_price(text, 10**6)


def test_a_price_above_a_million_units_each_is_refused() -> None:
    with pytest.raises(PriceFormatError):
        parse_price("1000000.000000000001", 1)


@pytest.mark.parametrize(
    "price", [Decimal("NaN"), Decimal("Infinity"), Decimal(-1), Decimal("1e99")]
)
def test_decimals_that_are_no_price_are_refused(price: Decimal) -> None:
    with pytest.raises(PriceFormatError):
        picos_per_unit(price, 10**6)


def test_an_hour_is_priced_by_the_second_rounded_up() -> None:
    assert picos_per_unit(Decimal("0.111"), 3600) == 30_833_334
