"""Teams, members and users in the API."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

import strawberry

from controlplane.api.faults import UserError, attempt
from controlplane.api.fields import mutation, resolved
from controlplane.api.nodes import Node, NodeKind, expect, expect_in, global_id
from controlplane.api.request import Info
from controlplane.authz import Role
from controlplane.context import Work
from controlplane.limits.models import ScopeKind
from controlplane.scope import not_found
from controlplane.tenancy import models, service
from controlplane.usage.spend.graphql import During, SpendTotals, spend_of

strawberry.enum(Role, name="Role", description="What a member is.")


@strawberry.type(description="A person.")
class User:
    """A person."""

    email: str = strawberry.field(description="E-mail address, in lower case.")
    name: str | None = strawberry.field(description="Name, if known.")
    is_operator: bool = strawberry.field(description="Whether this is the installation's operator.")


@strawberry.type(description="A group of members and keys with limits of its own.")
class Team(Node):
    """A group of members and keys."""

    slug: str = strawberry.field(description="Name for addresses, unique in the organization.")
    name: str = strawberry.field(description="Name for people.")
    created_at: datetime = strawberry.field(description="When it was created.")
    version: int = strawberry.field(description="Counts changes.")
    row: strawberry.Private[models.Team]

    @resolved("What those of its requests that you may see add up to.")
    async def spend(self, info: Info, range: During) -> SpendTotals:  # noqa: A002
        """Add up spending."""
        row = self.row
        return await spend_of(info, row.organization_id, ScopeKind.TEAM, row.id, range)


@strawberry.type(description="A user's place in an organization.")
class Member(Node):
    """A user's place in an organization."""

    organization_id: strawberry.ID = strawberry.field(description="Its organization.")
    role: Role = strawberry.field(description="What the member is.")
    joined_at: datetime = strawberry.field(description="Since when.")
    version: int = strawberry.field(description="Counts changes.")
    row: strawberry.Private[models.Member]

    @resolved("Who it is.")
    async def user(self, info: Info) -> User:
        """Load the person."""
        row = await info.context.users.load(self.row.user_id)
        if row is None:
            raise not_found("user")
        return user_of(row)

    @resolved("The team it is in.")
    async def team(self, info: Info) -> Team | None:
        """Load the team."""
        return await load_team(info, self.row.organization_id, self.row.team_id)

    @resolved("What those of its requests that you may see add up to.")
    async def spend(self, info: Info, range: During) -> SpendTotals:  # noqa: A002
        """Add up spending."""
        row = self.row
        return await spend_of(info, row.organization_id, ScopeKind.MEMBER, row.id, range)


def user_of(row: models.User) -> User:
    """Show a user."""
    return User(email=row.email, name=row.name, is_operator=row.operator)


def team_of(row: models.Team) -> Team:
    """Show a team."""
    return Team(
        id=global_id(NodeKind.TEAM, row.organization_id, row.id),
        slug=row.slug,
        name=row.name,
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
    """Load a team by a reference to it."""
    if team_id is None:
        return None
    row = await info.context.teams.load((organization_id, team_id))
    return None if row is None else team_of(row)


async def load_member(info: Info, organization_id: UUID, member_id: UUID | None) -> Member | None:
    """Load a member by a reference to it."""
    if member_id is None:
        return None
    row = await info.context.members.load((organization_id, member_id))
    return None if row is None else member_of(row)


@strawberry.input(description="A team to create.")
class TeamCreateInput:
    """A team to create."""

    organization_id: strawberry.ID = strawberry.field(description="In which organization.")
    name: str = strawberry.field(description="Name for people, up to 200 characters.")
    slug: str | None = strawberry.field(
        default=None, description="Name for addresses; made from the name when left out."
    )


@strawberry.type(description="The created team, or why there is none.")
class TeamPayload:
    """The created team, or why there is none."""

    team: Team | None = strawberry.field(description="The team; null when there are errors.")
    errors: list[UserError] = strawberry.field(description="What you can mend.")


@strawberry.input(description="A member to create.")
class MemberCreateInput:
    """A member to create."""

    organization_id: strawberry.ID = strawberry.field(description="In which organization.")
    email: str = strawberry.field(description="Address of the user, who is created if unknown.")
    name: str | None = strawberry.field(
        default=None, description="Name of the user, when it is created."
    )
    role: Role = strawberry.field(default=Role.MEMBER, description="What the member shall be.")
    team_id: strawberry.ID | None = strawberry.field(
        default=None, description="The team it shall be in; a team admin needs one."
    )


@strawberry.type(description="The created member, or why there is none.")
class MemberPayload:
    """The created member, or why there is none."""

    member: Member | None = strawberry.field(description="The member; null when there are errors.")
    errors: list[UserError] = strawberry.field(description="What you can mend.")


@strawberry.type
class TenancyMutation:
    """Changes to teams and members."""

    @mutation("Create a team. For admins and the operator.")
    async def team_create(self, info: Info, input: TeamCreateInput) -> TeamPayload:  # noqa: A002
        """Create a team."""

        async def change(work: Work) -> models.Team:
            place = expect(input.organization_id, NodeKind.ORGANIZATION, "organization")
            return await service.create_team(work, place.id, name=input.name, slug=input.slug)

        row, errors = await attempt(info, change)
        return TeamPayload(team=None if row is None else team_of(row), errors=errors)

    @mutation("Make a user a member. For admins, team admins in their team, the operator.")
    async def member_create(self, info: Info, input: MemberCreateInput) -> MemberPayload:  # noqa: A002
        """Make a user a member."""

        async def change(work: Work) -> models.Member:
            place = expect(input.organization_id, NodeKind.ORGANIZATION, "organization")
            return await service.create_member(
                work,
                place.id,
                email=input.email,
                name=input.name,
                role=input.role,
                team_id=expect_in(input.team_id, NodeKind.TEAM, "team", place.id),
            )

        row, errors = await attempt(info, change)
        return MemberPayload(member=None if row is None else member_of(row), errors=errors)
