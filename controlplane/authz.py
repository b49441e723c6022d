"""Who may do what: one plain table (role, action) → reach, and the callers it is applied to."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from uuid import UUID

from controlplane.errors import NotFound, NotPermitted


class Role(StrEnum):
    """What a member is in its organization."""

    ADMIN = "admin"
    BILLING_VIEWER = "billing_viewer"
    TEAM_ADMIN = "team_admin"
    MEMBER = "member"


class Action(StrEnum):
    """What a caller may be allowed to do."""

    STRUCTURE_READ = "structure_read"
    REQUESTS_READ = "requests_read"
    LIMITS_WRITE = "limits_write"
    MEMBER_LIMITS_WRITE = "member_limits_write"
    BREAKERS_WRITE = "breakers_write"
    KEYS_WRITE = "keys_write"
    RATES_WRITE = "rates_write"
    MODELS_WRITE = "models_write"
    TEAMS_WRITE = "teams_write"
    MEMBERS_WRITE = "members_write"
    COST_CENTERS_WRITE = "cost_centers_write"
    BILLING_READ = "billing_read"
    BILLING_WRITE = "billing_write"
    POOLS_WRITE = "pools_write"


class Reach(IntEnum):
    """How far an action of a role goes inside its organization; each includes those below."""

    NONE = 0
    OWN = 1
    TEAM = 2
    ORGANIZATION = 3


_ALL, _TEAM, _OWN = Reach.ORGANIZATION, Reach.TEAM, Reach.OWN

# What is absent is not allowed. A team's admin sets the limits of its members and keys, never
# those of the team itself: that is the ceiling it works under. Likewise it gives cost centers to
# its members and keys, while the cost centers themselves are the organization's.
GRANTS: Mapping[tuple[Role, Action], Reach] = {
    (Role.ADMIN, Action.STRUCTURE_READ): _ALL,
    (Role.ADMIN, Action.REQUESTS_READ): _ALL,
    (Role.ADMIN, Action.LIMITS_WRITE): _ALL,
    (Role.ADMIN, Action.MEMBER_LIMITS_WRITE): _ALL,
    (Role.ADMIN, Action.BREAKERS_WRITE): _ALL,
    (Role.ADMIN, Action.KEYS_WRITE): _ALL,
    (Role.ADMIN, Action.RATES_WRITE): _ALL,
    (Role.ADMIN, Action.MODELS_WRITE): _ALL,
    (Role.ADMIN, Action.TEAMS_WRITE): _ALL,
    (Role.ADMIN, Action.MEMBERS_WRITE): _ALL,
    (Role.ADMIN, Action.COST_CENTERS_WRITE): _ALL,
    (Role.ADMIN, Action.BILLING_READ): _ALL,
    (Role.ADMIN, Action.POOLS_WRITE): _ALL,
    (Role.BILLING_VIEWER, Action.STRUCTURE_READ): _ALL,
    (Role.BILLING_VIEWER, Action.REQUESTS_READ): _ALL,
    (Role.BILLING_VIEWER, Action.BILLING_READ): _ALL,
    (Role.TEAM_ADMIN, Action.STRUCTURE_READ): _TEAM,
    (Role.TEAM_ADMIN, Action.REQUESTS_READ): _TEAM,
    (Role.TEAM_ADMIN, Action.MEMBER_LIMITS_WRITE): _TEAM,
    (Role.TEAM_ADMIN, Action.KEYS_WRITE): _TEAM,
    (Role.TEAM_ADMIN, Action.RATES_WRITE): _TEAM,
    (Role.TEAM_ADMIN, Action.MODELS_WRITE): _TEAM,
    (Role.TEAM_ADMIN, Action.MEMBERS_WRITE): _TEAM,
    (Role.TEAM_ADMIN, Action.COST_CENTERS_WRITE): _TEAM,
    (Role.MEMBER, Action.STRUCTURE_READ): _OWN,
    (Role.MEMBER, Action.REQUESTS_READ): _OWN,
    (Role.MEMBER, Action.KEYS_WRITE): _OWN,
}

# The operator looks into every organization, appoints its people and says what it pays and has
# paid, but sets no policy in it.
OPERATOR_GRANTS: Mapping[Action, Reach] = {
    Action.STRUCTURE_READ: _ALL,
    Action.REQUESTS_READ: _ALL,
    Action.TEAMS_WRITE: _ALL,
    Action.MEMBERS_WRITE: _ALL,
    Action.BILLING_READ: _ALL,
    Action.BILLING_WRITE: _ALL,
}


@dataclass(frozen=True, slots=True)
class Membership:
    """The one organization in which a caller acts, and what it is there."""

    organization_id: UUID
    member_id: UUID
    role: Role
    team_id: UUID | None


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks: a member of an organization, the installation's operator, or the system itself.

    `user_id` is None for the system alone, which seeds and migrates and may do everything.
    `token_id` names the access token it came by, if any; whoever asks is the same with another.
    """

    user_id: UUID | None
    operator: bool = False
    membership: Membership | None = None
    token_id: UUID | None = field(default=None, compare=False)

    @property
    def kind(self) -> str:
        """Name the kind of caller as it is written into the administrative record."""
        if self.user_id is None:
            return "system"
        return "operator" if self.operator else "member"

    def reach(self, action: Action, organization_id: UUID) -> Reach:
        """Tell how far this caller may take an action in an organization."""
        if self.user_id is None:
            return Reach.ORGANIZATION
        if self.operator:
            return OPERATOR_GRANTS.get(action, Reach.NONE)
        if self.membership is None or self.membership.organization_id != organization_id:
            return Reach.NONE
        return GRANTS.get((self.membership.role, action), Reach.NONE)


SYSTEM = Caller(user_id=None)


@dataclass(frozen=True, slots=True)
class Target:
    """What an action is about, by the team and the member it belongs to.

    All of the organization when both are None.
    """

    organization_id: UUID
    team_id: UUID | None = None
    member_id: UUID | None = None


def may(caller: Caller, action: Action, target: Target) -> bool:
    """Tell whether the caller may take the action on this target."""
    reach = caller.reach(action, target.organization_id)
    if reach is Reach.ORGANIZATION:
        return True
    membership = caller.membership
    if reach is Reach.NONE or membership is None:
        return False
    if target.member_id == membership.member_id:
        return True
    is_own_team = target.team_id is not None and target.team_id == membership.team_id
    return reach is Reach.TEAM and is_own_team


def sight(caller: Caller) -> Hashable:
    """Name what a caller may see and do: `may` answers alike for all callers of equal sight.

    So do `Caller.reach` and `scope.within_reach`, for every action and target. What depends on the
    person itself (the viewer, idempotency keys) is not covered.
    """
    if caller.user_id is None:
        return ("system",)
    if caller.operator:
        return ("operator",)
    membership = caller.membership
    if membership is None:
        return ("nobody",)
    place = ("organization", membership.organization_id, membership.role)
    if _reaches_all_or_nothing(membership.role):
        return place
    return (*place, membership.team_id, membership.member_id)


def _reaches_all_or_nothing(role: Role) -> bool:
    """Tell whether team and person make no difference: no grant of the role is about them."""
    reaches = {reach for (granted, _), reach in GRANTS.items() if granted is role}
    return reaches <= {Reach.NONE, Reach.ORGANIZATION}


def require(caller: Caller, action: Action, target: Target, noun: str) -> None:
    """Let pass only what the caller may do.

    Raises `NotFound` when the caller may not even see the target, else `NotPermitted`.
    """
    if may(caller, action, target):
        return
    if not may(caller, Action.STRUCTURE_READ, target):
        raise NotFound(f"There is no such {noun}.")
    raise NotPermitted(f"Your role does not allow {action.value.replace('_', ' ')} here.")


def require_operator(caller: Caller) -> None:
    """Let pass only the operator and the system: what is meant belongs to no organization.

    Raises `NotPermitted`.
    """
    if caller.user_id is not None and not caller.operator:
        raise NotPermitted("Only the operator may do this.")
