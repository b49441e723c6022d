"""The table of roles: who may take which action on what."""

from __future__ import annotations

from uuid import UUID

import pytest

from controlplane.authz import SYSTEM, Action, Caller, Membership, Role, Target, may, require
from controlplane.errors import NotFound, NotPermitted

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
    **{(Role.ADMIN, action): EVERYTHING for action in Action},
    (Role.BILLING_VIEWER, Action.STRUCTURE_READ): EVERYTHING,
    (Role.BILLING_VIEWER, Action.REQUESTS_READ): EVERYTHING,
    (Role.TEAM_ADMIN, Action.STRUCTURE_READ): IN_TEAM,
    (Role.TEAM_ADMIN, Action.REQUESTS_READ): IN_TEAM,
    (Role.TEAM_ADMIN, Action.MEMBER_LIMITS_WRITE): IN_TEAM,
    (Role.TEAM_ADMIN, Action.KEYS_WRITE): IN_TEAM,
    (Role.TEAM_ADMIN, Action.RATES_WRITE): IN_TEAM,
    (Role.TEAM_ADMIN, Action.MODELS_WRITE): IN_TEAM,
    (Role.TEAM_ADMIN, Action.MEMBERS_WRITE): IN_TEAM,
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


def test_the_operator_reads_and_appoints_but_sets_no_policy() -> None:
    operator = Caller(USER, operator=True)
    found = {action for action in Action if may(operator, action, Target(ORG))}
    assert found == {
        Action.STRUCTURE_READ,
        Action.REQUESTS_READ,
        Action.TEAMS_WRITE,
        Action.MEMBERS_WRITE,
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
