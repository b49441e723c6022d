"""Scalars of the API: money and counters travel as strings, instants as RFC 3339."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, NewType

import strawberry
from graphql import GraphQLError
from strawberry.types.scalar import ScalarDefinition

from controlplane.money import MoneyFormatError, format_money, parse_money

BIG_INT_MAX = 2**63 - 1
_BIG_INT_DIGITS_MAX = 19
# What fits 64 bits as nanoseconds since the epoch, cut to whole years.
_INSTANT_MIN = datetime(1970, 1, 1, tzinfo=UTC)
_INSTANT_MAX = datetime(2261, 12, 31, tzinfo=UTC)

# Nano units of a currency; only the API spells them as decimals.
Money = NewType("Money", int)
BigInt = NewType("BigInt", int)


def _parse_money(value: Any) -> Money:
    if not isinstance(value, str):
        raise GraphQLError('Write an amount of money as a string, as in "12.34".')
    try:
        return Money(parse_money(value))
    except MoneyFormatError as error:
        raise GraphQLError(str(error)) from error


def _parse_big_int(value: Any) -> BigInt:
    is_digits = isinstance(value, str) and value.isascii() and value.isdigit()
    if not is_digits or len(value) > _BIG_INT_DIGITS_MAX or int(value) > BIG_INT_MAX:
        raise GraphQLError(f'Write a whole number up to {BIG_INT_MAX} as a string, as in "100".')
    return BigInt(int(value))


def _parse_instant(value: Any) -> datetime:
    try:
        instant = datetime.fromisoformat(value)
    except (TypeError, ValueError) as error:
        raise GraphQLError("Write an instant as in 2026-03-14T09:26:53Z.") from error
    if instant.tzinfo is None:
        raise GraphQLError("An instant needs a time zone, as in 2026-03-14T09:26:53Z.")
    if not _INSTANT_MIN <= instant <= _INSTANT_MAX:
        raise GraphQLError("An instant is between the years 1970 and 2261.")
    return instant.astimezone(UTC)


def _format_instant(instant: datetime) -> str:
    return instant.astimezone(UTC).isoformat().replace("+00:00", "Z")


SCALARS: dict[object, ScalarDefinition] = {
    Money: strawberry.scalar(
        name="Money",
        description="Exact decimal in the organization's currency, as a string such as "
        '"12.34"; never a float; up to 9 decimals.',
        serialize=format_money,
        parse_value=_parse_money,
    ),
    BigInt: strawberry.scalar(
        name="BigInt",
        description="Unsigned 63-bit number as a string: tokens, counters.",
        serialize=str,
        parse_value=_parse_big_int,
    ),
    datetime: strawberry.scalar(
        name="DateTime",
        description="An instant, RFC 3339; answers are in UTC.",
        serialize=_format_instant,
        parse_value=_parse_instant,
    ),
}
