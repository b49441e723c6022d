"""Exchange rates are exact, and told to the engine so that each instant has one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.exchange.rate import (
    PICOS_MAX,
    RATES_TOLD_MAX,
    Rate,
    RateFormatError,
    format_rate,
    parse_rate,
    told,
)


@pytest.mark.parametrize(
    ("text", "picos"),
    [
        ("1", 10**12),
        ("0.9215", 921_500_000_000),
        ("0.000000000001", 1),
        ("32.5", 32_500_000_000_000),
        ("9223372.036854775807", PICOS_MAX),
    ],
)
def test_a_rate_is_read_exactly(text: str, picos: int) -> None:
    assert parse_rate(text) == picos
    assert format_rate(picos) == text


@pytest.mark.parametrize(
    "text",
    [
        "0",
        "0.000000000000",
        "0.0000000000001",
        "9223372.036854775808",
        "10000000",
        "-1",
        "+1",
        "1e3",
        " 1",
        "1.",
        ".5",
        "1,5",
        "NaN",
        "",
        "\u0661",
    ],
)
def test_what_is_no_rate_is_refused(text: str) -> None:
    with pytest.raises(RateFormatError):
        parse_rate(text)


@given(st.integers(1, PICOS_MAX))
def test_writing_and_reading_gives_the_rate_again(picos: int) -> None:
    assert parse_rate(format_rate(picos)) == picos


def test_the_first_rate_holds_since_ever_and_a_later_entry_of_an_instant_wins() -> None:
    entered = [Rate(5, 1), Rate(9, 2), Rate(9, 3), Rate(7, 4)]
    assert told(entered) == [Rate(0, 1), Rate(7, 4), Rate(9, 3)]
    assert told([]) == []


def test_only_the_latest_rates_are_told() -> None:
    entered = [Rate(number, number) for number in range(1, RATES_TOLD_MAX + 2)]
    assert told(entered[:-1]) == [Rate(0, 1), *entered[1:-1]]
    assert told(entered) == [Rate(0, 2), *entered[2:]]
