"""What a rule says, as values, and what may be written into one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from types import MappingProxyType
from typing import Any, Literal, TypedDict

from controlplane.errors import InvalidInput
from controlplane.inputs import checked_number, checked_text
from controlplane.policies.models import OnCut, RefusalDetail, Rule

NAMES_MAX = 1_000
# As long as a name the engine reads (`NAME_BYTES_MAX`): it would refuse the whole policy.
NAME_BYTES_MAX = 200
TOKENS_MAX = 1_000_000_000
RETRY_STORM_MAX = 1_000
HOLD_WAIT_MAX_S = 300
# As long as a label that a caller gives in a header.
LABEL_LENGTH_MAX = 200

Label = Literal["feature", "agent", "end_user", "session", "environment", "class"]
LABELS: tuple[Label, ...] = ("feature", "agent", "end_user", "session", "environment", "class")
CLASSES = ("interactive", "batch", "background")

ALLOWED = ("models", "tiers", "providers")
BLOCKED = ("providers_blocked", "features_blocked", "classes_blocked", "endpoints_blocked")
# The smallest and the largest of each number.
NUMBERS: Mapping[str, tuple[int, int]] = {
    "tokens_per_request_max": (1, TOKENS_MAX),
    "retry_storm_max": (1, RETRY_STORM_MAX),
    "output_tokens_default": (1, TOKENS_MAX),
    "hold_wait_s": (0, HOLD_WAIT_MAX_S),
}


@dataclass(frozen=True, slots=True)
class RuleValues:
    """What a rule says; as it is made it says nothing. Fields as of `models.Rule`."""

    models: list[str] | None = None
    tiers: list[str] | None = None
    providers: list[str] | None = None
    providers_blocked: list[str] = field(default_factory=list)
    features_blocked: list[str] = field(default_factory=list)
    classes_blocked: list[str] = field(default_factory=list)
    endpoints_blocked: list[str] = field(default_factory=list)
    tokens_per_request_max: int | None = None
    retry_storm_max: int | None = None
    output_tokens_default: int | None = None
    hold_wait_s: int | None = None
    on_cut: OnCut | None = None
    refusal_detail: RefusalDetail | None = None
    fixed: dict[str, str] = field(default_factory=dict)
    required: list[str] = field(default_factory=list)


class RuleChanges(TypedDict, total=False):
    """What shall change of a rule; what is left out stays, None and nothing in a list lift it."""

    models: Sequence[str] | None
    tiers: Sequence[str] | None
    providers: Sequence[str] | None
    providers_blocked: Sequence[str]
    features_blocked: Sequence[str]
    classes_blocked: Sequence[str]
    endpoints_blocked: Sequence[str]
    tokens_per_request_max: int | None
    retry_storm_max: int | None
    output_tokens_default: int | None
    hold_wait_s: int | None
    on_cut: OnCut | None
    refusal_detail: RefusalDetail | None
    fixed: Mapping[str, str]
    required: Sequence[str]


NAMES = tuple(each.name for each in fields(RuleValues))
SILENT = RuleValues()


def values_of(row: Rule | None) -> RuleValues:
    """Tell what a rule says; without one, nothing."""
    if row is None:
        return SILENT
    return RuleValues(**{name: getattr(row, name) for name in NAMES})


def checked_changes(
    changes: RuleChanges, inputs: Mapping[str, str] = MappingProxyType({})
) -> dict[str, Any]:
    """Accept what shall change: lists sorted, each name once.

    `inputs` names the inputs that are spelled otherwise than the fields of a rule.

    Raises `InvalidInput`.
    """
    return {
        name: _checked(name, value, inputs.get(name, camel(name)))
        for name, value in changes.items()
    }


def camel(name: str) -> str:
    """Spell a name as the API does."""
    first, *others = name.split("_")
    return first + "".join(each.capitalize() for each in others)


def _checked(name: str, value: Any, field_name: str) -> Any:
    if name in ALLOWED:
        return None if value is None else _names(value, field_name)
    if name in BLOCKED:
        return _blocked(name, value, field_name)
    if name in NUMBERS:
        return None if value is None else checked_number(value, field_name, *NUMBERS[name])
    if name == "fixed":
        return _fixed(value, field_name)
    if name == "required":
        return [label for label in LABELS if label in {_label(each, field_name) for each in value}]
    return value


def _blocked(name: str, value: Sequence[str], field_name: str) -> list[str]:
    names = _names(value, field_name)
    if name == "classes_blocked":
        for each in names:
            _class(each, field_name)
    if name == "endpoints_blocked" and not all(each.startswith("/") for each in names):
        raise InvalidInput("Write a path such as /v1/chat/completions.", field=(field_name,))
    return names


def _names(names: Sequence[str], field_name: str) -> list[str]:
    if len(names) > NAMES_MAX:
        raise InvalidInput(f"At most {NAMES_MAX} names.", field=(field_name,))
    return sorted({_name(each, field_name) for each in names})


def _name(name: str, field_name: str) -> str:
    checked = checked_text(name, field_name, NAME_BYTES_MAX)
    if len(checked.encode()) > NAME_BYTES_MAX:
        raise InvalidInput(f"A name has at most {NAME_BYTES_MAX} bytes.", field=(field_name,))
    return checked


def _fixed(labels: Mapping[str, str], field_name: str) -> dict[str, str]:
    found = {
        _label(label, field_name): checked_text(value, field_name, LABEL_LENGTH_MAX)
        for label, value in sorted(labels.items())
    }
    if "class" in found:
        _class(found["class"], field_name)
    return found


def _label(label: str, field_name: str) -> str:
    if label not in LABELS:
        raise InvalidInput(f"A label is one of {', '.join(LABELS)}.", field=(field_name,))
    return label


def _class(name: str, field_name: str) -> None:
    if name not in CLASSES:
        raise InvalidInput(f"A class is one of {', '.join(CLASSES)}.", field=(field_name,))
