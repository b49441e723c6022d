"""Breaker thresholds fall back: own, team's, organization's, installation's default."""

from __future__ import annotations

from uuid import UUID

from controlplane.limits.models import ScopeKind
from controlplane.limits.nesting import Tree, breaker_id, effective_breakers

ORG, TEAM, IN_TEAM, LONE = (UUID(int=number) for number in range(1, 5))
TREE = Tree(ORG, (TEAM,), ((IN_TEAM, TEAM), (LONE, None)))


def caps(own, default):
    found = effective_breakers(TREE, own, default)
    return {(each.scope_id, each.seconds): each.cap_nanos for each in found}


def test_without_any_threshold_there_is_no_breaker() -> None:
    assert caps({}, {60: None, 3600: None}) == {}


def test_the_default_holds_for_every_scope_in_its_window_alone() -> None:
    assert caps({}, {60: 7, 3600: None}) == {
        (ORG, 60): 7,
        (TEAM, 60): 7,
        (IN_TEAM, 60): 7,
        (LONE, 60): 7,
    }


def test_a_members_threshold_is_its_own_else_its_teams_else_the_organizations() -> None:
    own = {(ScopeKind.ORGANIZATION, ORG, 60): 100, (ScopeKind.TEAM, TEAM, 60): 50}
    assert caps(own, {60: 7}) == {
        (ORG, 60): 100,
        (TEAM, 60): 50,
        (IN_TEAM, 60): 50,
        (LONE, 60): 100,
    }
    own[ScopeKind.MEMBER, IN_TEAM, 60] = 500
    assert caps(own, {60: 7})[IN_TEAM, 60] == 500


def test_a_threshold_of_zero_is_a_threshold() -> None:
    own = {(ScopeKind.MEMBER, LONE, 3600): 0}
    assert caps(own, {3600: 9})[LONE, 3600] == 0


def test_a_breakers_id_depends_on_scope_and_window_alone() -> None:
    assert str(breaker_id(ScopeKind.TEAM, TEAM, 60)) == "c1653bd7-2c6e-5431-a2d1-29ca0390bff7"
    ids = [each.id for each in effective_breakers(TREE, {}, {60: 1, 3600: 2})]
    assert len(set(ids)) == 8
    assert breaker_id(ScopeKind.TEAM, TEAM, 60) in ids
