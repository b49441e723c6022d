"""Effective breakers: a threshold is the scope's own, else its team's, organization's, default."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from uuid import UUID, uuid5

from controlplane.limits.models import ScopeKind

BREAKER_WINDOWS_S = (60, 3600)

# Fixed for ever: limits of this installation are told apart by what is derived from it.
_NAMESPACE = UUID("6f9f3c0e-41b5-5d0b-9a57-3d1f3c2f7b11")

# Threshold in nano units by the scope that set it and the window in seconds.
Thresholds = Mapping[tuple[ScopeKind, UUID, int], int]


@dataclass(frozen=True, slots=True)
class EffectiveBreaker:
    """One window of a scope's breaker with the threshold that holds for it."""

    id: UUID
    scope_kind: ScopeKind
    scope_id: UUID
    seconds: int
    cap_nanos: int


@dataclass(frozen=True, slots=True)
class Tree:
    """The scopes of an organization: its teams, and its members with the team each is in."""

    organization_id: UUID
    team_ids: tuple[UUID, ...]
    members: tuple[tuple[UUID, UUID | None], ...]


def breaker_id(scope_kind: ScopeKind, scope_id: UUID, seconds: int) -> UUID:
    """Name one window of a scope's breaker, whether its threshold is its own or inherited."""
    return uuid5(_NAMESPACE, f"breaker/{scope_kind.value}/{scope_id}/{seconds}")


def effective_breakers(
    tree: Tree, own: Thresholds, default_nanos: Mapping[int, int | None]
) -> list[EffectiveBreaker]:
    """List the breakers of all scopes of an organization; those without a threshold have none."""
    found = []
    for seconds in BREAKER_WINDOWS_S:
        for path in _paths(tree):
            cap_nanos = _first_threshold(path, seconds, own, default_nanos.get(seconds))
            if cap_nanos is not None:
                kind, scope_id = path[0]
                name = breaker_id(kind, scope_id, seconds)
                found.append(EffectiveBreaker(name, kind, scope_id, seconds, cap_nanos))
    return found


Path = tuple[tuple[ScopeKind, UUID], ...]


def _paths(tree: Tree) -> Iterator[Path]:
    """List each scope followed by those it falls back to."""
    organization = (ScopeKind.ORGANIZATION, tree.organization_id)
    yield (organization,)
    for team_id in tree.team_ids:
        yield ((ScopeKind.TEAM, team_id), organization)
    for member_id, its_team_id in tree.members:
        member = (ScopeKind.MEMBER, member_id)
        if its_team_id is None:
            yield (member, organization)
        else:
            yield (member, (ScopeKind.TEAM, its_team_id), organization)


def _first_threshold(
    path: Iterable[tuple[ScopeKind, UUID]],
    seconds: int,
    own: Thresholds,
    default_nanos: int | None,
) -> int | None:
    for kind, scope_id in path:
        cap_nanos = own.get((kind, scope_id, seconds))
        if cap_nanos is not None:
            return cap_nanos
    return default_nanos
