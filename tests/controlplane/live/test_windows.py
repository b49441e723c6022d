"""Rolling sums against all that ever happened: never too little, too much by one bucket."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from controlplane.live.windows import HOUR_S, MINUTE_S, NANOS_PER_S, Figures, Windows

START_NS = 1_773_480_413 * NANOS_PER_S


@dataclass(frozen=True)
class Happened:
    at_ns: int
    nanos: int
    requests: int
    refused: int


STEPS = st.lists(
    st.tuples(
        st.one_of(st.integers(0, 3 * NANOS_PER_S), st.integers(0, 5_000 * NANOS_PER_S)),
        st.one_of(st.integers(0, 3 * NANOS_PER_S), st.integers(0, 5_000 * NANOS_PER_S)),
        st.integers(0, 10**12),
        st.integers(0, 3),
        st.integers(0, 3),
        st.booleans(),
    ),
    max_size=25,
)


def after(happened: list[Happened], since_ns: int) -> list[Happened]:
    return [each for each in happened if each.at_ns > since_ns]


def bounds(
    happened: list[Happened], now_ns: int, span_s: int, bucket_s: int
) -> tuple[list[Happened], list[Happened]]:
    """Give what surely counts, and what may count because its bucket is not over yet."""
    # The present second is not over either: it counts as its beginning.
    oldest_ns = now_ns // NANOS_PER_S * NANOS_PER_S - (span_s + bucket_s) * NANOS_PER_S
    return after(happened, now_ns - span_s * NANOS_PER_S), after(happened, oldest_ns)


def is_between(happened: tuple[list[Happened], list[Happened]], name: str, found: int) -> bool:
    least, most = (sum(getattr(each, name) for each in part) for part in happened)
    return least <= found <= most


@given(STEPS)
def test_figures_are_never_too_small_and_hardly_too_large(steps: list) -> None:
    windows, happened, now_ns = Windows(), [], START_NS
    for elapsed_ns, late_ns, nanos, requests, refused, is_read in steps:
        now_ns += elapsed_ns
        each = Happened(now_ns - late_ns, nanos, requests, refused)
        windows.add(each.at_ns, nanos, requests=requests, refused=refused)
        happened.append(each)
        if not is_read:
            continue
        found = windows.figures(now_ns)
        minute = bounds(happened, now_ns, MINUTE_S, 1)
        assert is_between(minute, "nanos", found.minute_nanos)
        assert is_between(minute, "requests", found.requests_per_minute)
        assert is_between(minute, "refused", found.refused_per_minute)
        assert is_between(bounds(happened, now_ns, HOUR_S, 60), "nanos", found.hour_nanos)


@given(STEPS)
def test_the_order_in_which_things_are_told_does_not_matter(steps: list) -> None:
    now_ns = START_NS + 10_000 * NANOS_PER_S
    there, back = Windows(), Windows()
    for windows, told in ((there, steps), (back, reversed(steps))):
        for _, late_ns, nanos, requests, refused, _ in told:
            windows.add(now_ns - late_ns, nanos, requests=requests, refused=refused)
    assert there.figures(now_ns) == back.figures(now_ns)


def test_a_minute_ends_with_its_second_and_an_hour_with_its_minute() -> None:
    at_ns = (START_NS // NANOS_PER_S // 60 * 60 + 59) * NANOS_PER_S + NANOS_PER_S - 1
    windows = Windows()
    windows.add(at_ns, 7, requests=2, refused=1)
    assert windows.figures(at_ns + 60 * NANOS_PER_S) == Figures(7, 7, 2, 1)
    assert windows.figures(at_ns + 60 * NANOS_PER_S + 1) == Figures(0, 7, 0, 0)
    assert windows.figures(at_ns + 3_600 * NANOS_PER_S) == Figures(0, 7, 0, 0)
    assert windows.figures(at_ns + 3_600 * NANOS_PER_S + 1) == Figures()


def test_what_is_over_is_forgotten() -> None:
    windows = Windows()
    for second in range(10_000):
        windows.add(START_NS + second * NANOS_PER_S, 1, requests=1)
        windows.figures(START_NS + second * NANOS_PER_S)
    assert len(windows._minute._buckets) <= MINUTE_S + 1
    assert len(windows._hour._buckets) <= HOUR_S // 60 + 1


def test_what_is_counted_and_never_looked_at_stays_small() -> None:
    windows = Windows()
    for second in range(20_000):
        windows.add(START_NS + second * NANOS_PER_S, 7, requests=1)
    assert len(windows._minute._buckets) <= 2 * MINUTE_S + 1
    assert len(windows._hour._buckets) <= 2 * HOUR_S // 60 + 1
    figures = windows.figures(START_NS + 19_999 * NANOS_PER_S)
    assert (figures.minute_nanos, figures.requests_per_minute) == (61 * 7, 61)
    assert HOUR_S * 7 <= figures.hour_nanos <= (HOUR_S + 60) * 7
