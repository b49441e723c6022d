"""Money on its way in and out: exact decimal text against integer nano units."""

from __future__ import annotations

import re

NANOS_PER_UNIT = 1_000_000_000
AMOUNT_NANOS_MAX = 2**63 - 1

_AMOUNT = re.compile(r"(-?)(\d{1,10})(?:\.(\d{1,9}))?")


class MoneyFormatError(ValueError):
    """The text is no amount of money that can be held exactly."""


def parse_money(text: str) -> int:
    """Read a decimal amount such as `"12.34"` into nano units of its currency.

    At most ten digits before the point and nine behind it, no exponent, no separators.

    Raises `MoneyFormatError` for anything else and for amounts beyond 64 bits.
    """
    match = _AMOUNT.fullmatch(text) if text.isascii() else None
    if match is None:
        raise MoneyFormatError(
            f"{text[:40]!r} is no amount; write digits with at most 9 decimals, as in '12.34'"
        )
    sign, units, fraction = match.groups()
    nanos = int(units) * NANOS_PER_UNIT + int((fraction or "").ljust(9, "0"))
    if nanos > AMOUNT_NANOS_MAX:
        raise MoneyFormatError(f"{text} is larger than {format_money(AMOUNT_NANOS_MAX)}")
    return -nanos if sign else nanos


def format_money(nanos: int) -> str:
    """Write nano units as a decimal string with two to nine decimals, exactly."""
    units, fraction = divmod(abs(nanos), NANOS_PER_UNIT)
    digits = f"{fraction:09d}".rstrip("0").ljust(2, "0")
    return f"{'-' if nanos < 0 else ''}{units}.{digits}"
