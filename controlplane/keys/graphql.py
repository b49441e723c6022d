"""Virtual keys in the API."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from uuid import UUID

import strawberry
from sqlalchemy import func
from sqlalchemy.orm import InstrumentedAttribute

from controlplane.api.connections import (
    Connection,
    Ordering,
    connect,
    connection_of,
    cursor_of,
    page_by_id,
    page_in_order,
    page_of_children,
)
from controlplane.api.fields import enumeration, resolved
from controlplane.api.nodes import Node, NodeKind, expect, expect_in, global_id
from controlplane.api.request import Info
from controlplane.breakers.graphql import Breaker, visible_breakers
from controlplane.clock import instant
from controlplane.keys import models
from controlplane.keys.models import KeyState
from controlplane.keys.queries import KeyFilter, matching, visible_keys
from controlplane.keys.rotation import previous_ends_at, rotated_at
from controlplane.limits.graphql import Budget, RateLimit, budgets_of, rate_limit_of_key
from controlplane.limits.models import ScopeKind
from controlplane.limits.subjects import Scope
from controlplane.policies.graphql import Rule, load_rule
from controlplane.pools.graphql import Pool, load_pools
from controlplane.tenancy import models as tenancy
from controlplane.tenancy.graphql import (
    CostCenter,
    Member,
    Team,
    User,
    load_cost_center,
    load_member,
    load_team,
    user_of,
)
from controlplane.usage.spend.graphql import During, SpendTotals, spend_of


class KeyStatus(StrEnum):
    """Whether a key works, expiry included."""

    ACTIVE = "active"
    DISABLED = "disabled"
    REVOKED = "revoked"
    EXPIRED = "expired"


enumeration(
    KeyStatus,
    "KeyStatus",
    "Whether a key works.",
    {
        KeyStatus.ACTIVE: "It works.",
        KeyStatus.DISABLED: "It is refused until it is enabled again.",
        KeyStatus.REVOKED: "It is refused for good.",
        KeyStatus.EXPIRED: "Its `expiresAt` has passed, whether it was disabled or not.",
    },
)


@strawberry.type(description="A label of a key or a request.")
class Tag:
    """A label of a key."""

    name: str = strawberry.field(description="What the label is about.")
    value: str = strawberry.field(description="What it says.")


@strawberry.input(description="A label of a key or a request.")
class TagInput:
    """A label of a key."""

    name: str = strawberry.field(description="What the label is about.")
    value: str = strawberry.field(description="What it says.")


@strawberry.type(description="What an application authenticates with.")
class VirtualKey(Node):
    """What an application authenticates with."""

    name: str = strawberry.field(description="Name for people.")
    prefix: str = strawberry.field(
        description="How its secret begins; the secret itself is never readable again."
    )
    last_four: str = strawberry.field(description="How its secret ends.")
    status: KeyStatus = strawberry.field(description="Whether it works.")
    tags: list[Tag] = strawberry.field(description="Labels, by name.")
    created_at: datetime = strawberry.field(description="When it was created.")
    expires_at: datetime | None = strawberry.field(description="From when on it works no more.")
    version: int = strawberry.field(description="Counts changes; see `expectedVersion`.")
    row: strawberry.Private[models.VirtualKey]

    @resolved("The member it belongs to; null without one, or when you may not see it.")
    async def owner(self, info: Info) -> Member | None:
        """Load the owner."""
        return await load_member(info, self.row.organization_id, self.row.member_id)

    @resolved("The team it belongs to; null without one, or when you may not see it.")
    async def team(self, info: Info) -> Team | None:
        """Load the team."""
        return await load_team(info, self.row.organization_id, self.row.team_id)

    @resolved("Its own cost center.")
    async def cost_center(self, info: Info) -> CostCenter | None:
        """Load the cost center."""
        return await load_cost_center(info, self.row.organization_id, self.row.cost_center_id)

    @resolved("Where its requests are booked: its own, else its owner's, else its team's.")
    async def effective_cost_center(self, info: Info) -> CostCenter | None:
        """Load the cost center that counts."""
        row, place = self.row, self.row.organization_id
        found = row.cost_center_id
        if found is None and row.member_id is not None:
            member = await info.context.loaders.members.load((place, row.member_id))
            found = None if member is None else member.cost_center_id
        if found is None and row.team_id is not None:
            team = await info.context.loaders.teams.load((place, row.team_id))
            found = None if team is None else team.cost_center_id
        return await load_cost_center(info, place, found)

    @resolved("Pools it draws on, by name: each request must fit each of them.")
    async def pools(self, info: Info) -> list[Pool]:
        """List pools."""
        return await load_pools(info, self.row.organization_id, self.row.pool_ids)

    @resolved("Who made it; null where the system did.")
    async def created_by(self, info: Info) -> User | None:
        """Load the person."""
        if self.row.created_by is None:
            return None
        row = await info.context.loaders.users.load(self.row.created_by)
        return None if row is None else user_of(row)

    @resolved("When its secret was last replaced; null while it has its first.")
    async def rotated_at(self, info: Info) -> datetime | None:
        """Tell when it was rotated."""
        return rotated_at(await self._secrets(info), self.row)

    @resolved("When the last older secret ends that still works; null when none does.")
    async def previous_secret_expires_at(self, info: Info) -> datetime | None:
        """Tell until when older secrets work."""
        now = info.context.backend.installation.now()
        return previous_ends_at(await self._secrets(info), now)

    @resolved("Its own rule; null: what its team and organization may do, it may.")
    async def rule(self, info: Info) -> Rule | None:
        """Load the rule."""
        return await load_rule(info, self.row.organization_id, self._scope)

    @resolved("Models of its own rule; null: all that its team and organization may use.")
    async def allowed_models(self, info: Info) -> list[str] | None:
        """List the models."""
        rule = await load_rule(info, self.row.organization_id, self._scope)
        return None if rule is None else rule.models

    @resolved("Its rates; null while it never had any.")
    async def rate_limit(self, info: Info) -> RateLimit | None:
        """Load the rates."""
        return await rate_limit_of_key(info, self.row.organization_id, self.row.id)

    @resolved("Its own budgets; those of its owner, team and organization bind it, too.")
    async def budgets(self, info: Info) -> list[Budget]:
        """List budgets."""
        return await budgets_of(info, self.row.organization_id, self._scope)

    @resolved("Breakers that stop it, of those you may see: its owner's, team's, organization's.")
    async def breakers(self, info: Info) -> list[Breaker]:
        """List breakers."""
        row = self.row
        return await visible_breakers(
            info, row.organization_id, team_id=row.team_id, member_id=row.member_id
        )

    @resolved("What those of its requests that you may see add up to.")
    async def spend(self, info: Info, range: During) -> SpendTotals:  # noqa: A002
        """Add up spending."""
        row = self.row
        return await spend_of(info, row.organization_id, ScopeKind.KEY, row.id, range)

    @resolved("When it was used last, also if that was refused; null: never.")
    async def last_used_at(self, info: Info) -> datetime | None:
        """Tell when it was used last."""
        at_ns = await info.context.loaders.last_uses.load((self.row.organization_id, self.row.id))
        return None if at_ns is None else instant(at_ns)

    @property
    def _scope(self) -> Scope:
        return Scope(ScopeKind.KEY, self.row.id)

    async def _secrets(self, info: Info) -> list[models.KeySecret]:
        return await info.context.loaders.secrets.load((self.row.organization_id, self.row.id))


def key_of(row: models.VirtualKey, now: datetime) -> VirtualKey:
    """Show a key."""
    return VirtualKey(
        id=global_id(NodeKind.KEY, row.organization_id, row.id),
        name=row.name,
        prefix=row.prefix,
        last_four=row.last_four,
        status=_status(row, now),
        tags=[Tag(name=name, value=value) for name, value in sorted(row.tags.items())],
        created_at=row.created_at,
        expires_at=row.expires_at,
        version=row.version,
        row=row,
    )


def _status(row: models.VirtualKey, now: datetime) -> KeyStatus:
    if row.state is not KeyState.REVOKED and row.expires_at is not None and row.expires_at <= now:
        return KeyStatus.EXPIRED
    return KeyStatus(row.state.value)


@strawberry.input(description="Which keys to show.")
class KeyFilterInput:
    """Which keys to show."""

    status: list[KeyStatus] | None = strawberry.field(
        default=None, description="With one of these."
    )
    team_id: strawberry.ID | None = strawberry.field(default=None, description="Of this team.")
    owner_id: strawberry.ID | None = strawberry.field(default=None, description="Of this member.")
    query: str | None = strawberry.field(
        default=None, description="With this text in the name, in upper or lower case."
    )
    cost_center_id: strawberry.ID | None = strawberry.field(
        default=None, description="Booked on this cost center: see `effectiveCostCenter`."
    )
    tag: TagInput | None = strawberry.field(default=None, description="With exactly this label.")
    expiring_before: datetime | None = strawberry.field(
        default=None, description="That end, or have ended, before this instant."
    )

    def as_filter(self, place: str) -> KeyFilter:
        """Read the filter; `place` is the global id of the organization.

        Raises `NotFound`.
        """
        organization_id = expect(place, NodeKind.ORGANIZATION, "organization").id
        return KeyFilter(
            statuses=frozenset(each.value for each in self.status or ()),
            team_id=expect_in(self.team_id, NodeKind.TEAM, "team", organization_id),
            member_id=expect_in(self.owner_id, NodeKind.MEMBER, "member", organization_id),
            text=self.query,
            cost_center_id=expect_in(
                self.cost_center_id, NodeKind.COST_CENTER, "cost center", organization_id
            ),
            tag=None if self.tag is None else (self.tag.name, self.tag.value),
            expires_before=self.expiring_before,
        )


class KeyOrder(StrEnum):
    """How a list of keys is ordered."""

    CREATED_DESC = "created-desc"
    NAME_ASC = "name-asc"
    EXPIRES_ASC = "expires-asc"


enumeration(
    KeyOrder,
    "KeyOrder",
    "How keys are ordered. A cursor belongs to one of these.",
    {
        KeyOrder.CREATED_DESC: "Newest first.",
        KeyOrder.NAME_ASC: "By name, without regard to case.",
        KeyOrder.EXPIRES_ASC: "Those that end soonest first, those that never end last.",
    },
)

_ORDERINGS: dict[KeyOrder, Ordering[models.VirtualKey]] = {
    KeyOrder.NAME_ASC: Ordering(
        KeyOrder.NAME_ASC.value, func.lower(models.VirtualKey.name), models.VirtualKey.id
    ),
    KeyOrder.EXPIRES_ASC: Ordering(
        KeyOrder.EXPIRES_ASC.value,
        models.VirtualKey.expires_at,
        models.VirtualKey.id,
        is_instant=True,
    ),
}


async def page_of_keys(
    info: Info,
    organization_id: UUID,
    wanted: KeyFilter,
    order: KeyOrder,
    first: int,
    after: str | None,
) -> Connection[VirtualKey]:
    """Read a page of the keys of an organization that the caller may see.

    Raises `InvalidInput`.
    """
    now = info.context.backend.installation.now()
    query = visible_keys(info.context.caller, organization_id)
    query = query.where(matching(wanted, organization_id, now))
    ordering = _ORDERINGS.get(order)
    async with info.context.backend.database.read() as session:
        if ordering is None:
            rows, has_next = await page_by_id(
                session, query, models.VirtualKey.id, first=first, after=after
            )
            items = [(cursor_of(row.id), row) for row in rows]
        else:
            items, has_next = await page_in_order(
                session, query, ordering, first=first, after=after
            )
    shown = [(cursor, key_of(row, now)) for cursor, row in items]
    return connect(shown, has_next=has_next, has_previous=after is not None)


async def keys_of_team(
    info: Info, team: tenancy.Team, first: int, after: str | None
) -> Connection[VirtualKey]:
    """Read a page of the keys of a team."""
    column = models.VirtualKey.team_id
    return await _keys_of(info, team.organization_id, column, team.id, first, after)


async def keys_of_member(
    info: Info, member: tenancy.Member, first: int, after: str | None
) -> Connection[VirtualKey]:
    """Read a page of the keys of a member."""
    column = models.VirtualKey.member_id
    return await _keys_of(info, member.organization_id, column, member.id, first, after)


async def _keys_of(
    info: Info,
    organization_id: UUID,
    parent: InstrumentedAttribute[UUID | None],
    parent_id: UUID,
    first: int,
    after: str | None,
) -> Connection[VirtualKey]:
    now = info.context.backend.installation.now()
    rows, has_next = await page_of_children(
        info,
        (f"keys by {parent.key}", organization_id),
        visible_keys(info.context.caller, organization_id),
        models.VirtualKey.id,
        parent,
        parent_id,
        first=first,
        after=after,
    )
    return connection_of(
        rows, lambda row: key_of(row, now), lambda row: row.id, has_next=has_next, after=after
    )
