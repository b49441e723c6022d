"""What `make bench` prints: figures of this run beside their floors and targets."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Row:
    """One figure. `ratio` is it against its floor; `target` is what the design asks of either."""

    name: str
    figure: str
    floor: str = ""
    ratio: str = ""
    target: str = ""
    beside: str = ""


HEAD = Row("what", "ours", "floor", "ratio", "target", "beside")


def print_rows(title: str, rows: Sequence[Row]) -> None:
    """Print a titled table."""
    print(f"\n{title}")
    for row in (HEAD, *rows):
        print(
            f"  {row.name:44}{row.figure:>12}{row.floor:>12}{row.ratio:>8}  {row.target:22}"
            f"{row.beside}",
            flush=True,
        )


def median_of(rounds: Sequence[float]) -> float:
    """Take the median of the rounds of a run."""
    return statistics.median(rounds)


def ratio_of(ours: Sequence[float], floors: Sequence[float]) -> str:
    """Compare round by round, so that a slow moment of the machine hits both; the median."""
    ratios = sorted(one / floor for one, floor in zip(ours, floors, strict=True))
    return f"{statistics.median(ratios):.2f}"


def percentile(ordered: Sequence[float], percent: int) -> float:
    """Take a percentile of a sorted list."""
    return ordered[min(len(ordered) - 1, len(ordered) * percent // 100)]
