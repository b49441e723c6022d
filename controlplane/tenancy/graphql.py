"""Teams, members and users in the API."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Annotated
from uuid import UUID

import strawberry

from controlplane.access.graphql import AccessToken, tokens_of_member
from controlplane.access.queries import may_manage_those_of
from controlplane.api.connections import (
    FIRST_DEFAULT,
    After,
    Connection,
    First,
    connection_of,
    page_of_children,
)
from controlplane.api.fields import enumeration, resolved
from controlplane.api.nodes import Node, NodeKind, expect_in, global_id
from controlplane.api.request import Info
from controlplane.authz import Action, Role, Target, may
from controlplane.breakers.graphql import Breaker, load_breaker
from controlplane.limits.graphql import Budget, budgets_of
from controlplane.limits.models import ScopeKind
from controlplane.limits.subjects import Scope
from controlplane.policies.graphql import Rule, load_rule
from controlplane.scope import not_found
from controlplane.tenancy import models
from controlplane.tenancy.models import Allotment
from controlplane.tenancy.queries import visible_members, visible_teams
from controlplane.usage.spend.graphql import During, SpendTotals, spend_of

if TYPE_CHECKING:
    from controlplane.api.organization import Organization
    from controlplane.keys.graphql import VirtualKey

Key = Annotated["VirtualKey", strawberry.lazy("controlplane.keys.graphql")]
Place = Annotated["Organization", strawberry.lazy("controlplane.api.organization")]

enumeration(
    Role,
    "Role",
    "What a member is.",
    {
        Role.ADMIN: "Sees and changes everything in the organization.",
        Role.BILLING_VIEWER: "Sees everything in the organization and changes nothing in it.",
        Role.TEAM_ADMIN: "Sees its team and itself; changes the team's members and keys and "
        "their limits, not those of the team.",
        Role.MEMBER: "Sees itself and its own keys and requests; changes its keys.",
    },
)


enumeration(
    Allotment,
    "Allotment",
    "Whether a team's budget may be shared out to more than there is.",
    {
        Allotment.FREE: "Budgets in it may add up to more than its own; the narrowest room counts.",
        Allotment.STRICT: "Budgets of its members and keys never add up to more than its own over "
        "the same window.",
    },
)


@strawberry.type(description="A person.")
class User:
    """A person."""

    email: str = strawberry.field(description="E-mail address, in lower case.")
    name: str | None = strawberry.field(description="Name, if known.")
    is_operator: bool = strawberry.field(description="Whether this is the installation's operator.")


@strawberry.type(description="Where finance books spending.")
class CostCenter(Node):
    """Where finance books spending."""

    code: str = strawberry.field(description="What the books call it, unique in the organization.")
    name: str = strawberry.field(description="Name for people.")
    created_at: datetime = strawberry.field(description="When it was created.")
    archived_at: datetime | None = strawberry.field(
        description="Since when it can be given to nothing new; what has it keeps it."
    )
    version: int = strawberry.field(description="Counts changes; see `expectedVersion`.")
    row: strawberry.Private[models.CostCenter]

    @resolved("Teams that have it themselves, of those you may see, newest first.")
    async def teams(
        self, info: Info, first: First = FIRST_DEFAULT, after: After = None
    ) -> Connection[Team]:
        """List teams."""
        place = self.row.organization_id
        rows, has_next = await page_of_children(
            info,
            ("CostCenter.teams", place),
            visible_teams(info.context.caller, place),
            models.Team.id,
            models.Team.cost_center_id,
            self.row.id,
            first=first,
            after=after,
        )
        return connection_of(rows, team_of, lambda row: row.id, has_next=has_next, after=after)


@strawberry.type(description="A group of members and keys with limits of its own.")
class Team(Node):
    """A group of members and keys."""

    slug: str = strawberry.field(description="Name for addresses, unique in the organization.")
    name: str = strawberry.field(description="Name for people.")
    allot: Allotment = strawberry.field(
        description="Whether budgets in it may add up to more than its own."
    )
    created_at: datetime = strawberry.field(description="When it was created.")
    version: int = strawberry.field(description="Counts changes; see `expectedVersion`.")
    row: strawberry.Private[models.Team]

    @resolved("Where its keys are booked that neither have a cost center nor does their owner.")
    async def cost_center(self, info: Info) -> CostCenter | None:
        """Load the cost center."""
        return await load_cost_center(info, self.row.organization_id, self.row.cost_center_id)

    @resolved("Its members that you may see, newest first.")
    async def members(
        self, info: Info, first: First = FIRST_DEFAULT, after: After = None
    ) -> Connection[Member]:
        """List members."""
        place = self.row.organization_id
        rows, has_next = await page_of_children(
            info,
            ("Team.members", place),
            visible_members(info.context.caller, place),
            models.Member.id,
            models.Member.team_id,
            self.row.id,
            first=first,
            after=after,
        )
        return connection_of(rows, member_of, lambda row: row.id, has_next=has_next, after=after)

    @resolved("Its keys that you may see, newest first.")
    async def keys(
        self, info: Info, first: First = FIRST_DEFAULT, after: After = None
    ) -> Connection[Key]:
        """List keys."""
        # Keys know their team and owner as well: one of the two must wait for the other.
        from controlplane.keys.graphql import keys_of_team  # noqa: PLC0415

        return await keys_of_team(info, self.row, first, after)

    @resolved("Its own budgets, if you may see them, not those of its members and keys.")
    async def budgets(self, info: Info) -> list[Budget]:
        """List budgets."""
        if not self._is_seen_whole(info):
            return []
        scope = Scope(ScopeKind.TEAM, self.row.id)
        return await budgets_of(info, self.row.organization_id, scope)

    @resolved("Its breaker; null when you may not see it.")
    async def breaker(self, info: Info) -> Breaker | None:
        """Load the breaker."""
        if not self._is_seen_whole(info):
            return None
        scope = Scope(ScopeKind.TEAM, self.row.id)
        return await load_breaker(info, self.row.organization_id, scope)

    @resolved("What its keys may do at most; null: all that its organization may.")
    async def rule(self, info: Info) -> Rule | None:
        """Load the rule."""
        # Also for who may not see the rest: it says what one's own keys may use.
        scope = Scope(ScopeKind.TEAM, self.row.id)
        return await load_rule(info, self.row.organization_id, scope)

    @resolved("What those of its requests that you may see add up to.")
    async def spend(self, info: Info, range: During) -> SpendTotals:  # noqa: A002
        """Add up spending."""
        row = self.row
        return await spend_of(info, row.organization_id, ScopeKind.TEAM, row.id, range)

    def _is_seen_whole(self, info: Info) -> bool:
        """Tell whether the caller sees more of it than that it is in it."""
        target = Target(self.row.organization_id, team_id=self.row.id)
        return may(info.context.caller, Action.STRUCTURE_READ, target)


@strawberry.type(description="A user's place in an organization.")
class Member(Node):
    """A user's place in an organization."""

    organization_id: strawberry.ID = strawberry.field(description="Its organization's global id.")
    role: Role = strawberry.field(description="What the member is.")
    joined_at: datetime = strawberry.field(description="Since when.")
    version: int = strawberry.field(description="Counts changes; see `expectedVersion`.")
    row: strawberry.Private[models.Member]

    @resolved("Who it is.")
    async def user(self, info: Info) -> User:
        """Load the person."""
        row = await info.context.loaders.users.load(self.row.user_id)
        if row is None:
            raise not_found("user")
        return user_of(row)

    @resolved("Its organization.")
    async def organization(self, info: Info) -> Place:
        """Load the organization."""
        from controlplane.api.organization import load_organization  # noqa: PLC0415  as Team.keys

        return await load_organization(info, self.row.organization_id)

    @resolved("The team it is in.")
    async def team(self, info: Info) -> Team | None:
        """Load the team."""
        return await load_team(info, self.row.organization_id, self.row.team_id)

    @resolved("Where its keys are booked that have no cost center of their own.")
    async def cost_center(self, info: Info) -> CostCenter | None:
        """Load the cost center."""
        return await load_cost_center(info, self.row.organization_id, self.row.cost_center_id)

    @resolved("Its keys that you may see, newest first.")
    async def keys(
        self, info: Info, first: First = FIRST_DEFAULT, after: After = None
    ) -> Connection[Key]:
        """List keys."""
        from controlplane.keys.graphql import keys_of_member  # noqa: PLC0415  as Team.keys

        return await keys_of_member(info, self.row, first, after)

    @resolved("Its own budgets, not those of its keys.")
    async def budgets(self, info: Info) -> list[Budget]:
        """List budgets."""
        scope = Scope(ScopeKind.MEMBER, self.row.id)
        return await budgets_of(info, self.row.organization_id, scope)

    @resolved("Its breaker.")
    async def breaker(self, info: Info) -> Breaker:
        """Load the breaker."""
        scope = Scope(ScopeKind.MEMBER, self.row.id)
        return await load_breaker(info, self.row.organization_id, scope)

    @resolved(
        "Access tokens that stand for it, newest first; null unless it is you or you appoint."
    )
    async def access_tokens(
        self, info: Info, first: First = FIRST_DEFAULT, after: After = None
    ) -> Connection[AccessToken] | None:
        """List access tokens."""
        caller = info.context.caller
        if not may_manage_those_of(caller, self.row.organization_id, self.row.id):
            return None
        return await tokens_of_member(info, self.row, first, after)

    @resolved("What those of its requests that you may see add up to.")
    async def spend(self, info: Info, range: During) -> SpendTotals:  # noqa: A002
        """Add up spending."""
        row = self.row
        return await spend_of(info, row.organization_id, ScopeKind.MEMBER, row.id, range)


def user_of(row: models.User) -> User:
    """Show a user."""
    return User(email=row.email, name=row.name, is_operator=row.operator)


def cost_center_of(row: models.CostCenter) -> CostCenter:
    """Show a cost center."""
    return CostCenter(
        id=global_id(NodeKind.COST_CENTER, row.organization_id, row.id),
        code=row.code,
        name=row.name,
        created_at=row.created_at,
        archived_at=row.archived_at,
        version=row.version,
        row=row,
    )


def team_of(row: models.Team) -> Team:
    """Show a team."""
    return Team(
        id=global_id(NodeKind.TEAM, row.organization_id, row.id),
        slug=row.slug,
        name=row.name,
        allot=row.allot,
        created_at=row.created_at,
        version=row.version,
        row=row,
    )


def member_of(row: models.Member) -> Member:
    """Show a member."""
    return Member(
        id=global_id(NodeKind.MEMBER, row.organization_id, row.id),
        organization_id=global_id(NodeKind.ORGANIZATION, row.organization_id, row.organization_id),
        role=row.role,
        joined_at=row.created_at,
        version=row.version,
        row=row,
    )


async def load_team(info: Info, organization_id: UUID, team_id: UUID | None) -> Team | None:
    """Load a team by a reference to it; None when the caller may not see it."""
    if team_id is None:
        return None
    row = await info.context.loaders.teams.load((organization_id, team_id))
    return None if row is None else see_team(info, row)


async def load_member(info: Info, organization_id: UUID, member_id: UUID | None) -> Member | None:
    """Load a member by a reference to it; None when the caller may not see it."""
    if member_id is None:
        return None
    row = await info.context.loaders.members.load((organization_id, member_id))
    return None if row is None else see_member(info, row)


def see_team(info: Info, row: models.Team) -> Team | None:
    """Show a team, if the caller may see it; everyone sees the team that they are in."""
    caller = info.context.caller
    is_own = caller.membership is not None and caller.membership.team_id == row.id
    target = Target(row.organization_id, team_id=row.id)
    return team_of(row) if is_own or may(caller, Action.STRUCTURE_READ, target) else None


def see_member(info: Info, row: models.Member) -> Member | None:
    """Show a member, if the caller may see it."""
    target = Target(row.organization_id, team_id=row.team_id, member_id=row.id)
    return member_of(row) if may(info.context.caller, Action.STRUCTURE_READ, target) else None


async def load_cost_center(
    info: Info, organization_id: UUID, cost_center_id: UUID | None
) -> CostCenter | None:
    """Load a cost center by a reference to it."""
    if cost_center_id is None:
        return None
    row = await info.context.loaders.cost_centers.load((organization_id, cost_center_id))
    return None if row is None else cost_center_of(row)


def cost_center_in(text: str | None, organization_id: UUID) -> UUID | None:
    """Read an optional global id of a cost center of this organization.

    Raises `NotFound`.
    """
    return expect_in(text, NodeKind.COST_CENTER, "cost center", organization_id)
