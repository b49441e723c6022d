"""What a caller says a request is for, in `x-comptroller-*` headers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from proxy.errors import invalid_request

VALUE_LENGTH_MAX = 200
TAGS_MAX = 20
_PREFIX: Final = b"x-comptroller-"
CLASSES: Final = frozenset({"interactive", "batch", "background"})


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
