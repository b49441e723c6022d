"""Which requests of its scope a limit counts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from controlplane.errors import InvalidInput
from controlplane.inputs import checked_text

Where = dict[str, list[str]]

NAMES = ("models", "tiers", "providers", "features")
# Of each kind of name.
WHERE_NAMES_MAX = 100
# As long as a name the engine reads (`NAME_BYTES_MAX`): it would refuse the whole policy.
NAME_BYTES_MAX = 200


def checked_where(given: Mapping[str, Sequence[str] | None]) -> Where | None:
    """Accept lists of names; None for all, and when no list is given at all.

    Names are sorted and told once, so that equal choices are one slot.

    Raises `InvalidInput`.
    """
    found = {name: _names(given[name], name) for name in NAMES if given.get(name) is not None}
    return {name: names for name, names in found.items() if names is not None} or None


def where_form(where: Where | None) -> dict[str, list[str] | None] | None:
    """Write it as the engine reads it: all lists, null for those that allow all."""
    return None if where is None else {name: where.get(name) for name in NAMES}


def checked_name(text: str, *field: str) -> str:
    """Accept the name of a model, a tier, a provider or a feature.

    Raises `InvalidInput`.
    """
    checked = checked_text(text, field[-1], NAME_BYTES_MAX)
    if len(checked.encode()) > NAME_BYTES_MAX:
        raise InvalidInput(f"A name has at most {NAME_BYTES_MAX} bytes.", field=field)
    return checked


def _names(names: Sequence[str] | None, kind: str) -> list[str] | None:
    if names is None:
        return None
    if not 1 <= len(names) <= WHERE_NAMES_MAX:
        raise InvalidInput(
            f"Give 1 to {WHERE_NAMES_MAX} names, or leave it out for all.", field=("where", kind)
        )
    return sorted({checked_name(each, "where", kind) for each in names})
