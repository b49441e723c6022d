"""Virtual keys in the API."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from enum import StrEnum

import strawberry

from controlplane.api.faults import UserError, attempt
from controlplane.api.fields import mutation, resolved
from controlplane.api.nodes import GlobalId, Node, NodeKind, expect, expect_in, global_id
from controlplane.api.request import Info
from controlplane.api.scalars import BigInt
from controlplane.clock import instant
from controlplane.context import Work
from controlplane.errors import InvalidInput
from controlplane.keys import models, service
from controlplane.keys.models import KeyState
from controlplane.keys.queries import KeyFilter
from controlplane.limits.models import ScopeKind
from controlplane.tenancy.graphql import Member, Team, load_member, load_team
from controlplane.usage.spend.graphql import During, SpendTotals, spend_of


class KeyStatus(StrEnum):
    """Whether a key works, expiry included."""

    ACTIVE = "active"
    DISABLED = "disabled"
    REVOKED = "revoked"
    EXPIRED = "expired"


strawberry.enum(KeyStatus, name="KeyStatus", description="Whether a key works.")


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
    version: int = strawberry.field(description="Counts changes.")
    row: strawberry.Private[models.VirtualKey]

    @resolved("The member it belongs to.")
    async def owner(self, info: Info) -> Member | None:
        """Load the owner."""
        return await load_member(info, self.row.organization_id, self.row.member_id)

    @resolved("The team it belongs to.")
    async def team(self, info: Info) -> Team | None:
        """Load the team."""
        return await load_team(info, self.row.organization_id, self.row.team_id)

    @resolved("What those of its requests that you may see add up to.")
    async def spend(self, info: Info, range: During) -> SpendTotals:  # noqa: A002
        """Add up spending."""
        row = self.row
        return await spend_of(info, row.organization_id, ScopeKind.KEY, row.id, range)

    @resolved("When it was used last, also if that was refused; null: never.")
    async def last_used_at(self, info: Info) -> datetime | None:
        """Tell when it was used last."""
        at_ns = await info.context.last_uses.load((self.row.organization_id, self.row.id))
        return None if at_ns is None else instant(at_ns)


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

    def as_filter(self, place: str) -> KeyFilter:
        """Read the filter; `place` is the global id of the organization.

        Raises `NotFound`.
        """
        organization_id = expect(place, NodeKind.ORGANIZATION, "organization").id
        return KeyFilter(
            statuses=frozenset(each.value for each in self.status or ()),
            team_id=expect_in(self.team_id, NodeKind.TEAM, "team", organization_id),
            member_id=expect_in(self.owner_id, NodeKind.MEMBER, "member", organization_id),
        )


@strawberry.input(description="A key to create.")
class VirtualKeyCreateInput:
    """A key to create."""

    organization_id: strawberry.ID = strawberry.field(description="In which organization.")
    name: str = strawberry.field(description="Name for people, up to 200 characters.")
    idempotency_key: str = strawberry.field(
        description="A retry with the same value returns the first key, its secret null."
    )
    owner_id: strawberry.ID | None = strawberry.field(
        default=None, description="The member it belongs to; a plain member owns what it creates."
    )
    team_id: strawberry.ID | None = strawberry.field(
        default=None, description="The team it belongs to."
    )
    expires_at: datetime | None = strawberry.field(
        default=None, description="From when on it works no more."
    )
    tags: list[TagInput] | None = strawberry.field(default=None, description="Labels, at most 20.")
    allowed_models: list[str] | None = strawberry.field(
        default=None, description="The models it may use; left out: all its team may use."
    )
    requests_per_minute: int | None = strawberry.field(
        default=None, description="Most requests in any 60 seconds."
    )
    tokens_per_minute: BigInt | None = strawberry.field(
        default=None, description="Tokens in any 60 seconds at which it is stopped."
    )


@strawberry.type(description="A key and its secret, or why there is none.")
class VirtualKeySecretPayload:
    """A key and its secret."""

    virtual_key: VirtualKey | None = strawberry.field(
        description="The key; null when there are errors."
    )
    secret: str | None = strawberry.field(
        description="The secret, in the first successful answer and never again."
    )
    replayed: bool = strawberry.field(
        description="Whether an earlier call with this idempotency key made the key."
    )
    errors: list[UserError] = strawberry.field(description="What you can mend.")


@strawberry.input(description="A key to revoke.")
class VirtualKeyRevokeInput:
    """A key to revoke."""

    key_id: strawberry.ID = strawberry.field(description="The key.")
    reason: str | None = strawberry.field(default=None, description="Why, for the record.")


@strawberry.input(description="A key to disable or enable.")
class VirtualKeySetEnabledInput:
    """A key to disable or enable."""

    key_id: strawberry.ID = strawberry.field(description="The key.")
    enabled: bool = strawberry.field(description="Whether it shall work.")
    expected_version: int | None = strawberry.field(
        default=None, description="Refuse if the key has changed since this version."
    )


@strawberry.type(description="The changed key, or why nothing was changed.")
class VirtualKeyPayload:
    """The changed key, or why nothing was changed."""

    virtual_key: VirtualKey | None = strawberry.field(
        description="The key; null when there are errors."
    )
    errors: list[UserError] = strawberry.field(description="What you can mend.")


@strawberry.type
class KeyMutation:
    """Changes to keys."""

    @mutation("Create a key; its secret is shown this once.")
    async def virtual_key_create(
        self,
        info: Info,
        input: VirtualKeyCreateInput,  # noqa: A002
    ) -> VirtualKeySecretPayload:
        """Create a key."""

        async def change(work: Work) -> service.CreatedKey:
            place = expect(input.organization_id, NodeKind.ORGANIZATION, "organization")
            new = _new_key(input, place)
            return await service.create_key(
                work, place.id, new, idempotency_key=input.idempotency_key
            )

        created, errors = await attempt(info, change)
        if created is None:
            return VirtualKeySecretPayload(
                virtual_key=None, secret=None, replayed=False, errors=errors
            )
        now = info.context.backend.installation.now()
        return VirtualKeySecretPayload(
            virtual_key=key_of(created.key, now),
            secret=created.secret,
            replayed=created.replayed,
            errors=[],
        )

    @mutation("Revoke a key for good; effective on its next request.")
    async def virtual_key_revoke(
        self,
        info: Info,
        input: VirtualKeyRevokeInput,  # noqa: A002
    ) -> VirtualKeyPayload:
        """Revoke a key."""

        async def change(work: Work) -> models.VirtualKey:
            key = expect(input.key_id, NodeKind.KEY, "key")
            return await service.revoke_key(work, key.organization_id, key.id, reason=input.reason)

        return _payload(info, *await attempt(info, change))

    @mutation("Disable a key for a while, or enable it again.")
    async def virtual_key_set_enabled(
        self,
        info: Info,
        input: VirtualKeySetEnabledInput,  # noqa: A002
    ) -> VirtualKeyPayload:
        """Disable or enable a key."""

        async def change(work: Work) -> models.VirtualKey:
            key = expect(input.key_id, NodeKind.KEY, "key")
            return await service.set_key_enabled(
                work,
                key.organization_id,
                key.id,
                enabled=input.enabled,
                expected_version=input.expected_version,
            )

        return _payload(info, *await attempt(info, change))


def _payload(
    info: Info, row: models.VirtualKey | None, errors: list[UserError]
) -> VirtualKeyPayload:
    now = info.context.backend.installation.now()
    shown = None if row is None else key_of(row, now)
    return VirtualKeyPayload(virtual_key=shown, errors=errors)


def _new_key(wanted: VirtualKeyCreateInput, place: GlobalId) -> service.NewKey:
    models_allowed = wanted.allowed_models
    return service.NewKey(
        name=wanted.name,
        member_id=expect_in(wanted.owner_id, NodeKind.MEMBER, "member", place.id),
        team_id=expect_in(wanted.team_id, NodeKind.TEAM, "team", place.id),
        expires_at=wanted.expires_at,
        tags=_tags(wanted.tags or ()),
        allowed_models=None if models_allowed is None else tuple(models_allowed),
        requests_per_minute=wanted.requests_per_minute,
        tokens_per_minute=wanted.tokens_per_minute,
    )


def _tags(tags: Sequence[TagInput]) -> dict[str, str]:
    found = {each.name: each.value for each in tags}
    if len(found) != len(tags):
        raise InvalidInput("A tag is given twice.", field=("tags",))
    return found
