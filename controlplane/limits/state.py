"""What a process that enforces limits says about each of them at this moment."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from uuid import UUID

from controlplane.limits.subjects import Scope


@dataclass(frozen=True, slots=True)
class LimitState:
    """The live counters of one limit, in its unit (nano units for money).

    `resets_at_ns` is the end of a calendar period, None for rolling windows. An open breaker
    `is_open` until `frees_at_ns` if nothing more is spent. `still_held` is the part of `held`
    that requests under way have not cost so far.
    """

    settled: int
    held: int
    as_of_ns: int
    resets_at_ns: int | None = None
    is_open: bool = False
    # Of what is held, what requests under way have cost so far: breakers count it.
    running: int = 0
    frees_at_ns: int | None = None
    still_held: int = 0

    @property
    def figures(self) -> tuple[int, int, bool, int]:
        """What people look at: two states with equal figures look the same."""
        return (self.settled, self.held, self.is_open, self.still_held)


# The limits of one scope of an organization, by their ids. Asked at most once for each scope and
# API request; must not block.
LimitStates = Callable[[UUID, Scope], Mapping[UUID, LimitState]]


def no_limit_states(_organization_id: UUID, _scope: Scope) -> Mapping[UUID, LimitState]:
    """Answer for a process in which nothing is enforced."""
    return {}
