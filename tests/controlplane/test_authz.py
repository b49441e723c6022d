"""The table of roles: who may take which action on what."""

from __future__ import annotations

from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controlplane.authz import (
    SYSTEM,
    Action,
    Caller,
    Membership,
    Role,
    Target,
    may,
    require,
    sight,
)
from controlplane.errors import NotFound, NotPermitted
from controlplane.keys.models import VirtualKey
from controlplane.scope import within_reach
from controlplane.tenancy.models import Member, Team

ORG, OTHER_ORG, TEAM, OTHER_TEAM, ME, MATE, USER = (UUID(int=number) for number in range(1, 8))

TARGETS = {
    "organization": Target(ORG),
    "own team": Target(ORG, team_id=TEAM),
    "mate": Target(ORG, team_id=TEAM, member_id=MATE),
    "self": Target(ORG, team_id=TEAM, member_id=ME),
    "other team": Target(ORG, team_id=OTHER_TEAM),
}
EVERYTHING = frozenset(TARGETS)
IN_TEAM = frozenset({"own team", "mate", "self"})
SELF = frozenset({"self"})

# As in the design's table of roles; what is not here is allowed on nothing.
ALLOWED = {
    **{(Role.ADMIN, action): EVERYTHING for action in set(Action) - {Action.BILLING_WRITE}},
    (Role.BILLING_VIEWER, Action.STRUCTURE_READ): EVERYTHING,
    (Role.BILLING_VIEWER, Action.REQUESTS_READ): EVERYTHING,
    (Role.BILLING_VIEWER, Action.BILLING_READ): EVERYTHING,
    (Role.TEAM_ADMIN, Action.STRUCTURE_READ): IN_TEAM,
    (Role.TEAM_ADMIN, Action.REQUESTS_READ): IN_TEAM,
    (Role.TEAM_ADMIN, Action.MEMBER_LIMITS_WRITE): IN_TEAM,
    (Role.TEAM_ADMIN, Action.KEYS_WRITE): IN_TEAM,
    (Role.TEAM_ADMIN, Action.RATES_WRITE): IN_TEAM,
    (Role.TEAM_ADMIN, Action.MODELS_WRITE): IN_TEAM,
    (Role.TEAM_ADMIN, Action.MEMBERS_WRITE): IN_TEAM,
    (Role.TEAM_ADMIN, Action.COST_CENTERS_WRITE): IN_TEAM,
    (Role.MEMBER, Action.STRUCTURE_READ): SELF,
    (Role.MEMBER, Action.REQUESTS_READ): SELF,
    (Role.MEMBER, Action.KEYS_WRITE): SELF,
}


def caller(role: Role, organization_id: UUID = ORG) -> Caller:
    return Caller(USER, membership=Membership(organization_id, ME, role, TEAM))


@pytest.mark.parametrize("role", Role)
@pytest.mark.parametrize("action", Action)
def test_a_role_may_do_exactly_what_the_table_says(role: Role, action: Action) -> None:
    found = {name for name, target in TARGETS.items() if may(caller(role), action, target)}
    assert found == ALLOWED.get((role, action), frozenset())


@pytest.mark.parametrize("role", Role)
def test_nobody_reaches_into_another_organization(role: Role) -> None:
    stranger = caller(role, OTHER_ORG)
    for action in Action:
        for target in TARGETS.values():
            assert not may(stranger, action, target)
            with pytest.raises(NotFound):
                require(stranger, action, target, "team")


def test_the_operator_reads_appoints_and_bills_but_sets_no_policy() -> None:
    operator = Caller(USER, operator=True)
    found = {action for action in Action if may(operator, action, Target(ORG))}
    assert found == {
        Action.STRUCTURE_READ,
        Action.REQUESTS_READ,
        Action.TEAMS_WRITE,
        Action.MEMBERS_WRITE,
        Action.BILLING_READ,
        Action.BILLING_WRITE,
    }


def test_the_system_may_do_everything() -> None:
    assert all(may(SYSTEM, action, Target(ORG)) for action in Action)


def test_a_user_without_membership_may_nothing() -> None:
    assert not any(may(Caller(USER), action, Target(ORG)) for action in Action)


def test_what_one_sees_but_may_not_change_is_not_permitted() -> None:
    with pytest.raises(NotPermitted):
        require(caller(Role.TEAM_ADMIN), Action.LIMITS_WRITE, TARGETS["own team"], "team")
    with pytest.raises(NotFound):
        require(caller(Role.TEAM_ADMIN), Action.LIMITS_WRITE, TARGETS["other team"], "team")


# Few values of each, so that callers of equal sight and targets they reach are common.
ORGS, TEAMS, MEMBERS = (ORG, OTHER_ORG), (TEAM, OTHER_TEAM), (ME, MATE)
MEMBERSHIPS = st.builds(
    Membership,
    st.sampled_from(ORGS),
    st.sampled_from(MEMBERS),
    st.sampled_from(Role),
    st.sampled_from((None, *TEAMS)),
)
CALLERS = st.builds(
    Caller,
    st.sampled_from((None, USER, ME)),
    operator=st.booleans(),
    membership=st.none() | MEMBERSHIPS,
    token_id=st.sampled_from((None, USER)),
)
ALL_TARGETS = [
    Target(organization_id, team_id, member_id)
    for organization_id in ORGS
    for team_id in (None, *TEAMS)
    for member_id in (None, *MEMBERS)
]
COLUMNS = (
    (Team.id, None),
    (Member.team_id, Member.id),
    (VirtualKey.team_id, VirtualKey.member_id),
)


def answers(caller: Caller) -> list[object]:
    """All that authorization says about a caller."""
    allowed = [may(caller, action, target) for action in Action for target in ALL_TARGETS]
    reaches = [caller.reach(action, place) for action in Action for place in ORGS]
    conditions = [
        within_reach(caller, action, place, team=team, member=member)
        for action in Action
        for place in ORGS
        for team, member in COLUMNS
    ]
    texts = [str(each.compile(compile_kwargs={"literal_binds": True})) for each in conditions]
    return [allowed, reaches, texts]


@settings(max_examples=300, deadline=None)
@given(CALLERS, CALLERS)
def test_callers_of_equal_sight_are_answered_alike(one: Caller, other: Caller) -> None:
    if sight(one) == sight(other):
        assert answers(one) == answers(other)


def test_all_callers_of_a_small_world_fall_into_sights_with_one_answer_each() -> None:
    callers = [
        Caller(user, membership=Membership(place, member, role, team))
        for user in (USER, ME)
        for place in ORGS
        for member in MEMBERS
        for role in Role
        for team in (None, *TEAMS)
    ]
    found: dict[object, list[object]] = {}
    for each in callers:
        assert found.setdefault(sight(each), answers(each)) == answers(each)
    # Two organizations, each with one sight of its admins, one of its billing viewers, and one for
    # every member and team of the other two roles.
    assert len(found) == 2 * (1 + 1 + 2 * 6)


@pytest.mark.parametrize("role", Role)
@pytest.mark.parametrize("other_role", Role)
def test_two_organizations_never_share_a_sight(role: Role, other_role: Role) -> None:
    assert sight(caller(role, ORG)) != sight(caller(other_role, OTHER_ORG))


@pytest.mark.parametrize("role", Role)
def test_a_member_shares_no_sight_with_the_operator_the_system_or_a_stranger(role: Role) -> None:
    others = [Caller(USER, operator=True), SYSTEM, Caller(USER)]
    assert len({sight(each) for each in (caller(role), *others)}) == 4


def test_a_caller_is_the_same_by_another_token() -> None:
    assert Caller(USER, token_id=ME) == Caller(USER, token_id=MATE)
