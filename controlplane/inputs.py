"""Checks of input values that several domains take."""

from __future__ import annotations

import re
from functools import cache
from zoneinfo import available_timezones

from controlplane.currencies import CURRENCIES
from controlplane.errors import InvalidInput
from controlplane.money import format_money

MONEY_NANOS_MAX = 2**63 - 1

_SLUG = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")


def checked_text(text: str, field: str, length_max: int) -> str:
    """Strip a text; it must have 1 to `length_max` printable characters.

    Raises `InvalidInput`.
    """
    stripped = text.strip()
    if not 1 <= len(stripped) <= length_max:
        raise InvalidInput(f"Write 1 to {length_max} characters.", field=(field,))
    if not stripped.isprintable():
        raise InvalidInput("Control characters are not allowed.", field=(field,))
    return stripped


def checked_slug(text: str, field: str = "slug") -> str:
    """Accept a name for addresses: lower-case letters, digits and inner hyphens, at most 63.

    Raises `InvalidInput`.
    """
    if _SLUG.fullmatch(text) is None:
        raise InvalidInput(
            "Use 1 to 63 lower-case letters, digits and inner hyphens.", field=(field,)
        )
    return text


def checked_currency(text: str, field: str = "currency") -> str:
    """Accept the code of a currency of ISO 4217 that is in use.

    Raises `InvalidInput`.
    """
    if text not in CURRENCIES:
        raise InvalidInput("Use a currency code of ISO 4217 such as USD or EUR.", field=(field,))
    return text


def checked_time_zone(name: str) -> str:
    """Accept the name of a time zone of the IANA database.

    Raises `InvalidInput`.
    """
    if name not in _time_zones():
        raise InvalidInput(
            "Use the name of a time zone such as Europe/Berlin.", field=("timezone",)
        )
    return name


def checked_number(value: int, field: str, minimum: int, maximum: int) -> int:
    """Accept a whole number of a closed range.

    Raises `InvalidInput`.
    """
    if not minimum <= value <= maximum:
        raise InvalidInput(f"Must be from {minimum} to {maximum}.", field=(field,))
    return value


def checked_money(nanos: int, field: str) -> int:
    """Accept an amount that is not negative and fits 64 bits in nano units.

    Raises `InvalidInput`, which names the range in whole units.
    """
    if not 0 <= nanos <= MONEY_NANOS_MAX:
        largest = format_money(MONEY_NANOS_MAX)
        raise InvalidInput(f"Must be an amount from 0 to {largest}.", field=(field,))
    return nanos


@cache
def _time_zones() -> frozenset[str]:
    # "localtime" is whatever the machine is set to, so it means nothing on another.
    return frozenset(available_timezones()) - {"localtime"}
