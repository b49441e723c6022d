"""What a caller says a request is for, in `x-comptroller-*` headers."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from proxy.errors import Problem, invalid_request

VALUE_LENGTH_MAX = 200
TAGS_MAX = 20
_PREFIX: Final = b"x-comptroller-"
CLASSES: Final = frozenset({"interactive", "batch", "background"})
CLASS_DEFAULT: Final = "interactive"


@dataclass(frozen=True, slots=True)
class Attribution:
    """Labels a caller gives; they narrow what is counted, never who pays."""

    feature: str | None = None
    agent: str | None = None
    end_user: str | None = None
    session: str | None = None
    environment: str | None = None
    request_class: str | None = None
    tags: tuple[tuple[str, str], ...] = ()


NONE = Attribution()
_FIELDS: Final = {
    b"x-comptroller-feature": "feature",
    b"x-comptroller-agent": "agent",
    b"x-comptroller-end-user": "end_user",
    b"x-comptroller-session": "session",
    b"x-comptroller-environment": "environment",
    b"x-comptroller-class": "request_class",
}

# What policies call a label, and where it is kept here.
LABELS: Final = {
    name.removeprefix(_PREFIX).decode().replace("-", "_"): field for name, field in _FIELDS.items()
}


def read_attribution(headers: dict[bytes, bytes]) -> Attribution:
    """Read the attribution headers; unknown `x-comptroller-*` names are ignored.

    Raises `Problem` (400 `invalid_header`) for a value that cannot be a label.
    """
    given = {name: value for name, value in headers.items() if name.startswith(_PREFIX)}
    if not given:
        return NONE
    labels = {
        field: _label(name.decode(), given[name])
        for name, field in _FIELDS.items()
        if name in given
    }
    if labels.get("request_class", "interactive") not in CLASSES:
        raise invalid_request(
            "invalid_header", f"x-comptroller-class must be one of {', '.join(sorted(CLASSES))}."
        )
    return Attribution(**labels, tags=_tags(given.get(b"x-comptroller-tags")))


def resolve(
    attribution: Attribution, fixed: Mapping[str, str], required: Collection[str]
) -> Attribution:
    """Fill in the labels that a policy fixes, and the class where nobody gives one.

    `fixed` holds values, `required` names, of the labels in `LABELS`. A fixed label need not be
    sent; sent with the same value it is fine.

    Raises `Problem`: 403 `attribution_not_allowed` for another value than the fixed one, 400
    `attribution_required` for a required label that is neither sent nor fixed.
    """
    for label, value in fixed.items():
        if getattr(attribution, LABELS[label]) not in (None, value):
            raise _not_allowed(label)
    filled: dict[str, Any] = {LABELS[label]: value for label, value in fixed.items()}
    resolved = replace(attribution, **filled) if filled else attribution
    # In the order of the labels, so that the same request is always told the same.
    for label, field in LABELS.items():
        if label in required and getattr(resolved, field) is None:
            raise _required(label)
    if resolved.request_class is None:
        resolved = replace(resolved, request_class=CLASS_DEFAULT)
    return resolved


def _not_allowed(label: str) -> Problem:
    name = _header(label)
    return Problem(
        403,
        "attribution_not_allowed",
        f"The value of {name} is fixed for this key. Leave the header out.",
        name,
    )


def _required(label: str) -> Problem:
    name = _header(label)
    return invalid_request("attribution_required", f"This key has to send the header {name}.", name)


def _header(label: str) -> str:
    return _PREFIX.decode() + label.replace("_", "-")


def _label(name: str, value: bytes) -> str:
    try:
        text = value.decode()
    except UnicodeDecodeError:
        text = ""
    if not 0 < len(text) <= VALUE_LENGTH_MAX or not text.isprintable():
        raise invalid_request(
            "invalid_header", f"{name} must be 1 to {VALUE_LENGTH_MAX} printable characters."
        )
    return text


def _tags(value: bytes | None) -> tuple[tuple[str, str], ...]:
    if value is None:
        return ()
    pairs = [pair.strip().partition(b"=") for pair in value.split(b",")]
    if len(pairs) > TAGS_MAX or not all(key and equals for key, equals, _ in pairs):
        raise invalid_request(
            "invalid_header", f"x-comptroller-tags must be at most {TAGS_MAX} pairs, as in k=v,k=v."
        )
    name = "x-comptroller-tags"
    tags = {_label(name, key): _label(name, text) for key, _, text in pairs}
    if len(tags) != len(pairs):
        raise invalid_request("invalid_header", "x-comptroller-tags has a key twice.")
    return tuple(sorted(tags.items()))
