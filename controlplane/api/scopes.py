"""Whose use is counted, in the API."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from enum import StrEnum
from typing import Annotated
from uuid import UUID

import strawberry

from controlplane.api.fields import enumeration, resolved
from controlplane.api.nodes import (
    SCOPE_NODES,
    GlobalId,
    Node,
    NodeKind,
    expect,
    expect_in,
    load_node,
    scope_id,
)
from controlplane.api.request import Info
from controlplane.authz import Action, Target, may
from controlplane.errors import InvalidInput
from controlplane.keys.models import VirtualKey
from controlplane.keys.queries import target_of
from controlplane.limits.labels import checked_label, member_and_team
from controlplane.limits.models import LABEL_KINDS, ScopeKind
from controlplane.limits.subjects import Scope, labelled, member_in_team
from controlplane.pools.models import Pool
from controlplane.tenancy.models import Team

enumeration(
    ScopeKind,
    "ScopeKind",
    "Whose use is counted.",
    {
        ScopeKind.ORGANIZATION: "Requests with any key of an organization.",
        ScopeKind.TEAM: "Requests with the keys of a team.",
        ScopeKind.MEMBER: "Requests with the keys that a member owns.",
        ScopeKind.MEMBER_IN_TEAM: "Requests with the keys of a team that a member owns.",
        ScopeKind.KEY: "Requests with one key.",
        ScopeKind.POOL: "Requests with the keys that draw on a pool.",
        ScopeKind.FEATURE: "Requests made for a feature, or for each.",
        ScopeKind.AGENT: "Requests made by an agent, or by each.",
        ScopeKind.END_USER: "Requests made for an end user, or for each.",
        ScopeKind.SESSION: "Requests made in a session, or in each.",
        ScopeKind.PROVIDER: "Requests of all organizations that a provider serves.",
        ScopeKind.INSTALLATION: "All requests of all organizations.",
    },
)


class LabelKind(StrEnum):
    """What a label of a request is about."""

    FEATURE = "feature"
    AGENT = "agent"
    END_USER = "end_user"
    SESSION = "session"


enumeration(
    LabelKind,
    "LabelKind",
    "What a label of a request is about.",
    {
        LabelKind.FEATURE: "The feature it was made for.",
        LabelKind.AGENT: "The agent that made it.",
        LabelKind.END_USER: "The end user it was made for.",
        LabelKind.SESSION: "The session it belongs to.",
    },
)


@strawberry.type(description="Whose use a limit counts.")
class SpendScope:
    """Whose use a limit counts."""

    kind: ScopeKind = strawberry.field(description="What it is.")
    id: strawberry.ID = strawberry.field(
        description="Its global id, for `node`, which finds nothing of a label."
    )
    is_each: bool = strawberry.field(
        description="Whether it stands for each label of its kind, each counted by itself."
    )
    organization_uuid: strawberry.Private[UUID]
    about: strawberry.Private[Scope]

    @resolved("What people call it; a member without a name is called by its address.")
    async def label(self, info: Info) -> str:
        """Load the name."""
        return await _label(info, self.organization_uuid, self.about)

    @resolved("The object itself; null for a label, and when you may not see it.")
    async def node(self, info: Info) -> Node | None:
        """Load the object; that of a member in a team is the member."""
        place, about = self.organization_uuid, self.about
        if about.kind is ScopeKind.MEMBER_IN_TEAM and about.label is not None:
            member_id, _ = member_and_team(about.label)
            return await load_node(info, GlobalId(NodeKind.MEMBER, place, member_id))
        return await load_node(info, GlobalId(SCOPE_NODES[about.kind], place, about.id))


@strawberry.input(description="A member in a team: what it uses with the team's keys.")
class MemberInTeamInput:
    """A member in a team."""

    member_id: strawberry.ID = strawberry.field(description="The member.")
    team_id: strawberry.ID = strawberry.field(description="The team.")


@strawberry.input(description="A label that requests carry, or each label of a kind.")
class LabelInput:
    """A label that requests carry."""

    organization_id: strawberry.ID = strawberry.field(description="In which organization.")
    kind: LabelKind = strawberry.field(description="What the label is about.")
    label: str | None = strawberry.field(
        default=None,
        description="The label, up to 200 characters, compared exactly; null: each of the kind, "
        "unless it has a limit of its own.",
    )


@strawberry.input(one_of=True, description="Exactly one.")
class ScopeInput:
    """Exactly one scope."""

    organization_id: strawberry.ID | None = strawberry.field(
        default=strawberry.UNSET, description="All of an organization."
    )
    team_id: strawberry.ID | None = strawberry.field(
        default=strawberry.UNSET, description="A team."
    )
    member_id: strawberry.ID | None = strawberry.field(
        default=strawberry.UNSET, description="A member."
    )
    key_id: strawberry.ID | None = strawberry.field(default=strawberry.UNSET, description="A key.")
    pool_id: strawberry.ID | None = strawberry.field(
        default=strawberry.UNSET, description="A pool: the keys that draw on it."
    )
    member_in_team: MemberInTeamInput | None = strawberry.field(
        default=strawberry.UNSET, description="A member in a team."
    )
    label: LabelInput | None = strawberry.field(
        default=strawberry.UNSET, description="A feature, agent, end user or session, or each."
    )

    def located(self) -> tuple[UUID, Scope]:
        """Read the organization and the scope in it.

        Raises `NotFound`, and `InvalidInput` when none is given or a label is none.
        """
        given = (
            (self.organization_id, NodeKind.ORGANIZATION, ScopeKind.ORGANIZATION),
            (self.team_id, NodeKind.TEAM, ScopeKind.TEAM),
            (self.member_id, NodeKind.MEMBER, ScopeKind.MEMBER),
            (self.key_id, NodeKind.KEY, ScopeKind.KEY),
            (self.pool_id, NodeKind.POOL, ScopeKind.POOL),
        )
        for text, node_kind, kind in given:
            if isinstance(text, str):
                found = expect(text, node_kind, kind.value)
                return found.organization_id, Scope(kind, found.id)
        if isinstance(self.member_in_team, MemberInTeamInput):
            return _member_in_team(self.member_in_team)
        if isinstance(self.label, LabelInput):
            return _label_scope(self.label)
        raise InvalidInput("Name a scope.", field=("scope",))


# As an argument of what is asked of an organization.
ScopeInside = Annotated[
    ScopeInput,
    strawberry.argument(
        description="The organization itself, or a team, member, key, pool or label in it; "
        "anything of another organization gives null."
    ),
]


def scope_of(organization_id: UUID, scope: Scope) -> SpendScope:
    """Show whose use is counted."""
    return SpendScope(
        kind=scope.kind,
        id=scope_id(organization_id, scope),
        is_each=scope.is_each,
        organization_uuid=organization_id,
        about=scope,
    )


async def sees_scope(info: Info, organization_id: UUID, scope: Scope) -> bool:
    """Tell whether there is such a scope and the caller may see it."""
    target = await _target(info, organization_id, scope)
    return target is not None and may(info.context.caller, Action.STRUCTURE_READ, target)


def _member_in_team(asked: MemberInTeamInput) -> tuple[UUID, Scope]:
    member = expect(asked.member_id, NodeKind.MEMBER, "member")
    team_id = expect_in(asked.team_id, NodeKind.TEAM, "team", member.organization_id)
    if team_id is None:
        raise AssertionError("the team is required")
    return member.organization_id, member_in_team(member.id, team_id)


def _label_scope(asked: LabelInput) -> tuple[UUID, Scope]:
    place = expect(asked.organization_id, NodeKind.ORGANIZATION, "organization")
    kind = ScopeKind(asked.kind.value)
    label = None if asked.label is None else checked_label(asked.label, "scope")
    return place.id, labelled(kind, label)


async def _target(info: Info, organization_id: UUID, scope: Scope) -> Target | None:
    if scope.kind in LABEL_KINDS:
        return Target(organization_id)
    if scope.kind is ScopeKind.MEMBER_IN_TEAM:
        return await _target_of_member_in_team(info, organization_id, scope)
    find = _TARGETS.get(scope.kind)
    return None if find is None else await find(info, organization_id, scope.id)


async def _target_of_member_in_team(
    info: Info, organization_id: UUID, scope: Scope
) -> Target | None:
    if scope.label is None:
        return None
    member_id, team_id = member_and_team(scope.label)
    loaders = info.context.loaders
    member = await loaders.members.load((organization_id, member_id))
    team = await loaders.teams.load((organization_id, team_id))
    if member is None or team is None:
        return None
    return Target(organization_id, team_id=team_id, member_id=member_id)


async def _organization(_info: Info, organization_id: UUID, row_id: UUID) -> Target | None:
    return Target(organization_id) if row_id == organization_id else None


async def _team(info: Info, organization_id: UUID, row_id: UUID) -> Target | None:
    team = await info.context.loaders.teams.load((organization_id, row_id))
    return None if team is None else Target(organization_id, team_id=team.id)


async def _member(info: Info, organization_id: UUID, row_id: UUID) -> Target | None:
    member = await info.context.loaders.members.load((organization_id, row_id))
    if member is None:
        return None
    return Target(organization_id, team_id=member.team_id, member_id=member.id)


async def _key(info: Info, organization_id: UUID, row_id: UUID) -> Target | None:
    key = await info.context.loaders.keys.load((organization_id, row_id))
    return None if key is None else target_of(key)


async def _pool(info: Info, organization_id: UUID, row_id: UUID) -> Target | None:
    pool = await info.context.loaders.pools.load((organization_id, row_id))
    return None if pool is None else Target(organization_id)


_TARGETS: Mapping[ScopeKind, Callable[[Info, UUID, UUID], Awaitable[Target | None]]] = {
    ScopeKind.ORGANIZATION: _organization,
    ScopeKind.TEAM: _team,
    ScopeKind.MEMBER: _member,
    ScopeKind.KEY: _key,
    ScopeKind.POOL: _pool,
}


async def _label(info: Info, organization_id: UUID, scope: Scope) -> str:
    loaders, name = info.context.loaders, (organization_id, scope.id)
    if scope.kind is ScopeKind.ORGANIZATION:
        organization = await loaders.organizations.load(scope.id)
        return "" if organization is None else organization.name
    if scope.kind is ScopeKind.MEMBER:
        return await _name_of_member(info, organization_id, scope.id)
    if scope.kind is ScopeKind.MEMBER_IN_TEAM and scope.label is not None:
        member_id, team_id = member_and_team(scope.label)
        team = await loaders.teams.load((organization_id, team_id))
        who = await _name_of_member(info, organization_id, member_id)
        return who if team is None else f"{who} in {team.name}"
    row: Team | VirtualKey | Pool | None = None
    if scope.kind is ScopeKind.TEAM:
        row = await loaders.teams.load(name)
    elif scope.kind is ScopeKind.KEY:
        row = await loaders.keys.load(name)
    elif scope.kind is ScopeKind.POOL:
        row = await loaders.pools.load(name)
    if row is not None:
        return row.name
    return f"each {scope.kind.value.replace('_', ' ')}" if scope.is_each else scope.label or ""


async def _name_of_member(info: Info, organization_id: UUID, member_id: UUID) -> str:
    loaders = info.context.loaders
    member = await loaders.members.load((organization_id, member_id))
    user = None if member is None else await loaders.users.load(member.user_id)
    return "" if user is None else user.name or user.email
