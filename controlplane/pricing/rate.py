"""Exact prices as integers: pico units of currency per priced unit."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Final

PICOS_PER_UNIT: Final = 10**12
RATE_PICOS_MAX: Final = 10**18
TOKENS_PER_MILLION: Final = 10**6

_PRICE = re.compile(r"\d{1,7}(?:\.\d{1,18})?", re.ASCII)


class PriceFormatError(ValueError):
    """The value is no price that can be held exactly."""


def picos_per_unit(price: Decimal, per: int) -> int:
    """Divide a price for `per` units into pico units for one, rounded up.

    Raises `PriceFormatError` unless the price is finite, not negative and within the sheet's limit.
    """
    if not price.is_finite() or price < 0 or price.adjusted() > len(str(RATE_PICOS_MAX)):
        raise PriceFormatError(f"{price} is no price")
    numerator, denominator = price.as_integer_ratio()
    picos = -(-numerator * PICOS_PER_UNIT // (denominator * per))
    if picos > RATE_PICOS_MAX:
        raise PriceFormatError(f"{price} for {per} units is too large")
    return picos


def parse_price(text: str, per: int) -> int:
    """Read a decimal price for `per` units, such as `"0.15"`, into pico units for one.

    At most seven digits before the point and eighteen behind it; rounded up.

    Raises `PriceFormatError` for anything else.
    """
    if not _PRICE.fullmatch(text):
        raise PriceFormatError(f"{text[:40]!r} is no price; write digits, as in '0.15'")
    return picos_per_unit(Decimal(text), per)
