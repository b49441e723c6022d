"""Whose use is counted, in the API."""

from __future__ import annotations

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
    load_node,
    scope_id,
)
from controlplane.api.request import Info
from controlplane.authz import Action, Target, may
from controlplane.errors import InvalidInput
from controlplane.keys.queries import target_of
from controlplane.limits.models import ScopeKind
from controlplane.limits.subjects import Scope

enumeration(
    ScopeKind,
    "ScopeKind",
    "Whose use is counted.",
    {
        ScopeKind.ORGANIZATION: "Requests with any key of an organization.",
        ScopeKind.TEAM: "Requests with the keys of a team.",
        ScopeKind.MEMBER: "Requests with the keys that a member owns.",
        ScopeKind.KEY: "Requests with one key.",
    },
)


@strawberry.type(description="Whose use a limit counts.")
class SpendScope:
    """Whose use a limit counts."""

    kind: ScopeKind = strawberry.field(description="What it is.")
    id: strawberry.ID = strawberry.field(description="Its global id, for `node`.")
    organization_uuid: strawberry.Private[UUID]
    about: strawberry.Private[Scope]

    @resolved("What people call it; a member without a name is called by its address.")
    async def label(self, info: Info) -> str:
        """Load the name."""
        return await _label(info, self.organization_uuid, self.about)

    @resolved("The object itself; null when you may not see it.")
    async def node(self, info: Info) -> Node | None:
        """Load the object."""
        kind = SCOPE_NODES[self.about.kind]
        return await load_node(info, GlobalId(kind, self.organization_uuid, self.about.id))


@strawberry.input(one_of=True, description="Exactly one.")
class ScopeInput:
    """Exactly one of an organization, a team, a member, a key."""

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

    def located(self) -> tuple[UUID, Scope]:
        """Read the organization and the scope in it.

        Raises `NotFound`, and `InvalidInput` when none is given.
        """
        given = (
            (self.organization_id, NodeKind.ORGANIZATION, ScopeKind.ORGANIZATION),
            (self.team_id, NodeKind.TEAM, ScopeKind.TEAM),
            (self.member_id, NodeKind.MEMBER, ScopeKind.MEMBER),
            (self.key_id, NodeKind.KEY, ScopeKind.KEY),
        )
        for text, node_kind, kind in given:
            if isinstance(text, str):
                found = expect(text, node_kind, kind.value)
                return found.organization_id, Scope(kind, found.id)
        raise InvalidInput("Name a scope.", field=("scope",))


# As an argument of what is asked of an organization.
ScopeInside = Annotated[
    ScopeInput,
    strawberry.argument(
        description="The organization itself, or a team, member or key in it; anything of another "
        "organization gives null."
    ),
]


def scope_of(organization_id: UUID, scope: Scope) -> SpendScope:
    """Show whose use is counted."""
    return SpendScope(
        kind=scope.kind,
        id=scope_id(organization_id, scope),
        organization_uuid=organization_id,
        about=scope,
    )


async def sees_scope(info: Info, organization_id: UUID, scope: Scope) -> bool:
    """Tell whether there is such a scope and the caller may see it."""
    target = await _target(info, organization_id, scope)
    return target is not None and may(info.context.caller, Action.STRUCTURE_READ, target)


async def _target(info: Info, organization_id: UUID, scope: Scope) -> Target | None:
    name = (organization_id, scope.id)
    if scope.kind is ScopeKind.ORGANIZATION:
        return Target(organization_id) if scope.id == organization_id else None
    if scope.kind is ScopeKind.TEAM:
        team = await info.context.loaders.teams.load(name)
        return None if team is None else Target(organization_id, team_id=team.id)
    if scope.kind is ScopeKind.MEMBER:
        member = await info.context.loaders.members.load(name)
        if member is None:
            return None
        return Target(organization_id, team_id=member.team_id, member_id=member.id)
    key = await info.context.loaders.keys.load(name)
    return None if key is None else target_of(key)


async def _label(info: Info, organization_id: UUID, scope: Scope) -> str:
    context = info.context
    if scope.kind is ScopeKind.ORGANIZATION:
        organization = await context.loaders.organizations.load(scope.id)
        return "" if organization is None else organization.name
    if scope.kind is ScopeKind.TEAM:
        team = await context.loaders.teams.load((organization_id, scope.id))
        return "" if team is None else team.name
    if scope.kind is ScopeKind.KEY:
        key = await context.loaders.keys.load((organization_id, scope.id))
        return "" if key is None else key.name
    member = await context.loaders.members.load((organization_id, scope.id))
    user = None if member is None else await context.loaders.users.load(member.user_id)
    return "" if user is None else user.name or user.email
