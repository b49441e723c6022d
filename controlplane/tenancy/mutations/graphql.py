"""Making and editing teams and members in the API."""

from __future__ import annotations

from uuid import UUID

import strawberry

from controlplane.api.faults import UserError, attempt
from controlplane.api.fields import mutation
from controlplane.api.given import given, required
from controlplane.api.nodes import NodeKind, expect, expect_in
from controlplane.api.request import Info
from controlplane.authz import Role
from controlplane.context import Work
from controlplane.tenancy import models, service
from controlplane.tenancy.changes import (
    MemberChanges,
    TeamChanges,
    update_member,
    update_team,
)
from controlplane.tenancy.graphql import Member, Team, cost_center_in, member_of, team_of
from controlplane.tenancy.models import Allotment


@strawberry.input(description="A team to create.")
class TeamCreateInput:
    """A team to create."""

    organization_id: strawberry.ID = strawberry.field(description="In which organization.")
    name: str = strawberry.field(description="Name for people, up to 200 characters.")
    slug: str | None = strawberry.field(
        default=None, description="Name for addresses; made from the name when left out."
    )
    cost_center_id: strawberry.ID | None = strawberry.field(
        default=None, description="Where its keys are booked unless they say otherwise."
    )
    idempotency_key: str | None = strawberry.field(
        default=None, description="A retry with the same value returns the first team."
    )


@strawberry.input(description="What to change of a team; what is left out stays.")
class TeamUpdateInput:
    """What to change of a team."""

    team_id: strawberry.ID = strawberry.field(description="The team.")
    expected_version: int = strawberry.field(description="The version you have seen.")
    name: str | None = strawberry.field(
        default=strawberry.UNSET, description="Name for people, up to 200 characters; not null."
    )
    cost_center_id: strawberry.ID | None = strawberry.field(
        default=strawberry.UNSET,
        description="Where its keys are booked unless they say otherwise; null: nowhere.",
    )
    allot: Allotment | None = strawberry.field(
        default=strawberry.UNSET,
        description="Whether budgets in it may add up to more than its own; not null. For admins.",
    )

    def changes(self, place: UUID) -> TeamChanges:
        """Read what was given.

        Raises `InvalidInput`, `NotFound`.
        """
        found = TeamChanges()
        if given(self.name):
            found["name"] = required(self.name, "name")
        if given(self.cost_center_id):
            found["cost_center_id"] = cost_center_in(self.cost_center_id, place)
        if given(self.allot):
            found["allot"] = required(self.allot, "allot")
        return found


@strawberry.type(description="The team, or why nothing was changed.")
class TeamPayload:
    """The team, or why nothing was changed."""

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
    cost_center_id: strawberry.ID | None = strawberry.field(
        default=None, description="Where its keys are booked that have none of their own."
    )


@strawberry.input(description="What to change of a member; what is left out stays.")
class MemberUpdateInput:
    """What to change of a member."""

    member_id: strawberry.ID = strawberry.field(description="The member.")
    expected_version: int = strawberry.field(description="The version you have seen.")
    role: Role | None = strawberry.field(
        default=strawberry.UNSET,
        description="What it shall be, never more than you are; the last admin stays; not null.",
    )
    team_id: strawberry.ID | None = strawberry.field(
        default=strawberry.UNSET,
        description="The team it shall be in; its keys stay where they are; null: none.",
    )
    cost_center_id: strawberry.ID | None = strawberry.field(
        default=strawberry.UNSET,
        description="Where its keys are booked that have none of their own; null: as its team.",
    )

    def changes(self, place: UUID) -> MemberChanges:
        """Read what was given.

        Raises `InvalidInput`, `NotFound`.
        """
        found = MemberChanges()
        if given(self.role):
            found["role"] = required(self.role, "role")
        if given(self.team_id):
            found["team_id"] = expect_in(self.team_id, NodeKind.TEAM, "team", place)
        if given(self.cost_center_id):
            found["cost_center_id"] = cost_center_in(self.cost_center_id, place)
        return found


@strawberry.type(description="The member, or why nothing was changed.")
class MemberPayload:
    """The member, or why nothing was changed."""

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
            return await service.create_team(
                work,
                place.id,
                name=input.name,
                slug=input.slug,
                cost_center_id=cost_center_in(input.cost_center_id, place.id),
                idempotency_key=input.idempotency_key,
            )

        row, errors = await attempt(info, change)
        return TeamPayload(team=None if row is None else team_of(row), errors=errors)

    @mutation("Change a team. For admins and the operator.")
    async def team_update(self, info: Info, input: TeamUpdateInput) -> TeamPayload:  # noqa: A002
        """Change a team."""

        async def change(work: Work) -> models.Team:
            team = expect(input.team_id, NodeKind.TEAM, "team")
            return await update_team(
                work,
                team.organization_id,
                team.id,
                input.changes(team.organization_id),
                expected_version=input.expected_version,
            )

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
                cost_center_id=cost_center_in(input.cost_center_id, place.id),
            )

        row, errors = await attempt(info, change)
        return MemberPayload(member=None if row is None else member_of(row), errors=errors)

    @mutation("Change what a member is, its team or cost center. As for making members.")
    async def member_update(self, info: Info, input: MemberUpdateInput) -> MemberPayload:  # noqa: A002
        """Change a member."""

        async def change(work: Work) -> models.Member:
            member = expect(input.member_id, NodeKind.MEMBER, "member")
            return await update_member(
                work,
                member.organization_id,
                member.id,
                input.changes(member.organization_id),
                expected_version=input.expected_version,
            )

        row, errors = await attempt(info, change)
        return MemberPayload(member=None if row is None else member_of(row), errors=errors)
