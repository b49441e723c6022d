"""How long answers are, and how that is written."""

from random import Random
from statistics import median

import pytest

from comptroller.simulator import Fixed, LogNormal, Uniform
from comptroller.simulator.directives import Directives, read_directives
from comptroller.simulator.faults import Fault, FaultRule
from comptroller.simulator.lengths import LENGTH_MAX, parse_length


@pytest.mark.parametrize(
    ("text", "length"),
    [
        ("300", Fixed(300)),
        ("fixed:0", Fixed(0)),
        (f"fixed:{LENGTH_MAX}", Fixed(LENGTH_MAX)),
        ("uniform:1:9", Uniform(1, 9)),
        ("lognormal:300", LogNormal(300, 1.0)),
        ("lognormal:300:0.5", LogNormal(300, 0.5)),
    ],
)
def test_a_length_is_read(text: str, length: object) -> None:
    assert parse_length(text) == length


@pytest.mark.parametrize(
    "text",
    [
        "",
        "many",
        "-1",
        str(LENGTH_MAX + 1),
        "uniform:9:1",
        "uniform:1",
        "lognormal:0",
        "lognormal:3:6",
        "lognormal:3:nan",
        "poisson:3",
    ],
)
def test_a_length_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is none of"):
        parse_length(text)


def test_a_uniform_length_reaches_both_ends() -> None:
    random = Random(1)
    assert {Uniform(2, 4).draw(random) for _ in range(100)} == {2, 3, 4}


def test_a_log_normal_length_has_its_median_and_stays_in_bounds() -> None:
    random = Random(1)
    drawn = [LogNormal(300, 1.0).draw(random) for _ in range(4000)]
    assert 280 < median(drawn) < 320
    assert min(drawn) >= 1
    assert max(LogNormal(LENGTH_MAX, 5.0).draw(random) for _ in range(50)) == LENGTH_MAX


def test_directives_of_several_messages_add_up_and_the_later_wins() -> None:
    found = read_directives(["[[sim output=5 pace=7]]", "no", "and [[sim pace=9 latency_ms=1]] so"])
    assert found == Directives(output=Fixed(5), pace=9, latency_ms=1)


def test_a_model_can_be_asked_to_misbehave() -> None:
    words = "reasoning=lognormal:300:1.0 reasoning_pace=70 exceed=5 overbill=100"
    assert read_directives([f"[[sim {words}]]"]) == Directives(
        reasoning=LogNormal(300, 1.0), reasoning_pace=70, exceed=5, overbill=100
    )


def test_a_fault_takes_the_words_that_are_its_own() -> None:
    found = read_directives(["[[sim output=5 fault=rate_limited retry_after_s=3]]"])
    assert found.output == Fixed(5)
    assert found.fault == FaultRule(Fault.RATE_LIMITED, retry_after_s=3)


@pytest.mark.parametrize(
    "text",
    [
        "[[sim pace=fast]]",
        "[[sim pace=1000001]]",
        "[[sim pace]]",
        "[[sim exceed=0]]",
        "[[sim overbill=101]]",
        "[[sim =1]]",
        "[[sim retry_after_s=3]]",
        "[[sim fault=none]]",
    ],
)
def test_a_directive_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(
        ValueError, match=r"whole number|written key=value|does not know|has no fault"
    ):
        read_directives([text])
