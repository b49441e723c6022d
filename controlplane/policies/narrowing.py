"""Whether a change of a rule only narrows what its requests may be.

Who does not reach all of an organization may tighten and never loosen: neither what a rule says
itself, nor, where the narrowest scope decides, what it would say over a wider one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from controlplane.errors import NotPermitted
from controlplane.policies.models import RefusalDetail
from controlplane.policies.values import ALLOWED, BLOCKED, NUMBERS, RuleValues, camel

# What holds where no scope says anything.
HOLD_WAIT_DEFAULT_S = 30
_DEFAULTS = {"hold_wait_s": HOLD_WAIT_DEFAULT_S}
_DETAILS = (RefusalDetail.NONE, RefusalDetail.OWN, RefusalDetail.ALL)


def refuse_widening(
    known: RuleValues, wanted: RuleValues, above: Sequence[RuleValues] = ()
) -> None:
    """Let pass only what narrows; `above` are the rules of wider scopes, the narrowest first.

    Raises `NotPermitted`, which names the first field that would be wider.
    """
    for name in _widened(known, wanted, above):
        raise NotPermitted(f"Your role can only narrow what is allowed, not widen {camel(name)}.")


def _widened(known: RuleValues, wanted: RuleValues, above: Sequence[RuleValues]) -> Iterator[str]:
    if known == wanted:
        return
    for name in ALLOWED:
        before, after = getattr(known, name), getattr(wanted, name)
        if before is not None and (after is None or not set(after) <= set(before)):
            yield name
    for name in (*BLOCKED, "required"):
        if not set(getattr(wanted, name)) >= set(getattr(known, name)):
            yield name
    for name in (*NUMBERS, "on_cut", "refusal_detail"):
        before, after = _in_force(name, known, above), _in_force(name, wanted, above)
        if before != after and not _is_narrower(name, before, after):
            yield name
    if _loosens(known.fixed, wanted.fixed, above):
        yield "fixed"


def _in_force(name: str, values: RuleValues, above: Sequence[RuleValues]) -> Any:
    found = [getattr(each, name) for each in (values, *above)]
    said = [each for each in found if each is not None]
    if name == "tokens_per_request_max":
        # The least of the path holds, so that a wider one makes no difference to what is set here.
        said = said[:1] if found[0] is not None else []
    return said[0] if said else _DEFAULTS.get(name)


def _is_narrower(name: str, before: Any, after: Any) -> bool:
    if name == "refusal_detail":
        known, wanted = (RefusalDetail.OWN if each is None else each for each in (before, after))
        return _DETAILS.index(wanted) <= _DETAILS.index(known)
    if before is None:
        return True
    # Of the two ways to cut neither is the narrower.
    return name != "on_cut" and after is not None and after < before


def _loosens(known: dict[str, str], wanted: dict[str, str], above: Sequence[RuleValues]) -> bool:
    """Tell whether a label that was fixed here, or by a wider scope, would be something else."""
    if any(wanted.get(label) != value for label, value in known.items()):
        return True
    added = {label: value for label, value in wanted.items() if label not in known}
    return any(
        each.fixed.get(label, value) != value for label, value in added.items() for each in above
    )
