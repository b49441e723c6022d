"""Exchange rates as exact integers, and as the engine reads them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

PICOS_PER_UNIT = 10**12
PICOS_MAX = 2**63 - 1
# The engine is told the latest ones; a rate holds at least until the next, and nobody asks for
# what held before all of these. More than may be entered ahead of time, so that the one in force
# is always among them.
RATES_TOLD_MAX = 100

_RATE = re.compile(r"(\d{1,7})(?:\.(\d{1,12}))?")


class RateFormatError(ValueError):
    """The text is no exchange rate that can be held exactly."""


@dataclass(frozen=True, slots=True)
class Rate:
    """A rate in pico units of the organization's currency, and since when it holds."""

    from_ns: int
    picos: int


SAME_CURRENCY = (Rate(0, PICOS_PER_UNIT),)


def parse_rate(text: str) -> int:
    """Read a decimal rate such as `"0.9215"` into pico units; it is above 0.

    At most seven digits before the point and twelve behind it.

    Raises `RateFormatError` for anything else and for rates beyond 64 bits.
    """
    match = _RATE.fullmatch(text) if text.isascii() else None
    if match is None:
        raise RateFormatError("Write a rate of digits with at most 12 decimals, as in '0.9215'.")
    units, fraction = match.groups()
    picos = int(units) * PICOS_PER_UNIT + int((fraction or "").ljust(12, "0"))
    if not 0 < picos <= PICOS_MAX:
        raise RateFormatError(f"A rate is above 0 and at most {format_rate(PICOS_MAX)}.")
    return picos


def format_rate(picos: int) -> str:
    """Write pico units as a decimal string, exactly, without zeros at its end."""
    units, fraction = divmod(picos, PICOS_PER_UNIT)
    digits = f"{fraction:012d}".rstrip("0")
    return f"{units}.{digits}" if digits else str(units)


def told(rates: Iterable[Rate]) -> list[Rate]:
    """List rates as the engine reads them: ascending, the first of them since ever.

    `rates` are in the order in which they were entered; of two from one instant the later counts.
    """
    by_start = {each.from_ns: each for each in rates}
    latest = [by_start[start] for start in sorted(by_start)][-RATES_TOLD_MAX:]
    return [
        Rate(0 if place == 0 else each.from_ns, each.picos) for place, each in enumerate(latest)
    ]
