"""Input fields that may be left out: what was given, told apart from null."""

from __future__ import annotations

from typing import Any, TypeVar

from strawberry import UNSET

from controlplane.errors import InvalidInput

T = TypeVar("T")


def given(value: Any) -> bool:
    """Tell whether a field that may be left out was given, if as null."""
    return value is not UNSET


def required(value: T | None, field: str) -> T:
    """Refuse null for what may be left out, but not be taken away.

    Raises `InvalidInput`.
    """
    if value is None:
        raise InvalidInput("Leave it out or give a value; it cannot be null.", field=(field,))
    return value
