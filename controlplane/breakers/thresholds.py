"""From whom a scope has the threshold of its breaker."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from controlplane.limits.nesting import BREAKER_WINDOWS_S
from controlplane.limits.queries import LimitPair
from controlplane.limits.subjects import Scope


@dataclass(frozen=True, slots=True)
class Threshold:
    """What holds for one window of a breaker, and whose it is.

    `set_by` is None for the installation's default, and where there is no threshold at all.
    """

    seconds: int
    cap_nanos: int | None
    set_by: Scope | None


def effective_thresholds(
    path: Sequence[LimitPair], default_nanos: Mapping[int, int | None]
) -> list[Threshold]:
    """Find the thresholds of a scope from its own and those it falls back to, in this order."""
    return [
        _first(path, place, seconds, default_nanos.get(seconds))
        for place, seconds in enumerate(BREAKER_WINDOWS_S)
    ]


def _first(
    path: Sequence[LimitPair], place: int, seconds: int, default_nanos: int | None
) -> Threshold:
    for pair in path:
        cap_nanos = pair.caps[place]
        if cap_nanos is not None:
            return Threshold(seconds, cap_nanos, pair.scope)
    return Threshold(seconds, default_nanos, None)
