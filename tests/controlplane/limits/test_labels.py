"""Ids of scopes without rows: the same as the engine derives."""

from __future__ import annotations

from uuid import UUID

import pytest

from controlplane.errors import InvalidInput
from controlplane.limits.labels import (
    checked_label,
    each_id,
    label_id,
    member_and_team,
    member_in_team_label,
)
from controlplane.limits.models import LABEL_KINDS, LABEL_LENGTH_MAX, ScopeKind
from controlplane.limits.subjects import labelled, member_in_team


def test_an_id_is_the_first_half_of_the_hash_of_kind_and_label() -> None:
    # printf 'feature\0search' | sha256sum
    assert label_id(ScopeKind.FEATURE, "search") == UUID("ef078112-55cd-0856-6fe7-ce455cc6f8a3")


def test_labels_are_compared_exactly_and_within_their_kind() -> None:
    ids = {
        label_id(kind, label)
        for kind in sorted(LABEL_KINDS)
        for label in ("search", "Search", "search/", "é", "e\u0301")
    } | {each_id(kind) for kind in LABEL_KINDS}
    assert len(ids) == 6 * len(LABEL_KINDS)


def test_each_label_is_a_scope_of_its_own() -> None:
    assert labelled(ScopeKind.AGENT, None).is_each
    assert not labelled(ScopeKind.AGENT, "bot").is_each
    assert labelled(ScopeKind.AGENT, None) != labelled(ScopeKind.SESSION, None)


def test_a_member_in_a_team_is_named_by_both() -> None:
    member, team = UUID(int=1), UUID(int=2)
    scope = member_in_team(member, team)
    assert scope.label == f"{member}/{team}" == member_in_team_label(member, team)
    assert member_and_team(scope.label) == (member, team)
    assert scope.id == label_id(ScopeKind.MEMBER_IN_TEAM, scope.label)


def test_a_label_has_at_most_two_hundred_characters() -> None:
    assert checked_label("é" * LABEL_LENGTH_MAX, "label") == "é" * 200
    for text in ("", " ", "a\0b", "é" * (LABEL_LENGTH_MAX + 1)):
        with pytest.raises(InvalidInput):
            checked_label(text, "label")
