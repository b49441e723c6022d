"""Making, editing, rotating and ending keys in the API."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

import strawberry

from controlplane.api.faults import UserError, attempt
from controlplane.api.fields import mutation
from controlplane.api.given import given, required
from controlplane.api.nodes import GlobalId, NodeKind, expect, expect_in
from controlplane.api.request import Info
from controlplane.api.scalars import BigInt
from controlplane.context import Work
from controlplane.errors import InvalidInput
from controlplane.keys import models, service
from controlplane.keys.changes import KeyChanges, update_key
from controlplane.keys.graphql import TagInput, VirtualKey, key_of
from controlplane.keys.rotation import rotate_key
from controlplane.pools.graphql import pools_in
from controlplane.tenancy.graphql import cost_center_in


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
        default=None,
        description="The team it belongs to; left out: yours, unless you are an admin.",
    )
    cost_center_id: strawberry.ID | None = strawberry.field(
        default=None,
        description="Where it is booked; left out: where its owner is, else its team. For admins.",
    )
    pool_ids: list[strawberry.ID] | None = strawberry.field(
        default=None, description="Pools it draws on, at most 8. For admins."
    )
    expires_at: datetime | None = strawberry.field(
        default=None, description="From when on it works no more."
    )
    tags: list[TagInput] | None = strawberry.field(default=None, description="Labels, at most 20.")
    allowed_models: list[str] | None = strawberry.field(
        default=None, description="The models it may use; left out: all its team may use."
    )
    agent: str | None = strawberry.field(
        default=None,
        description="Make it the key of this agent, up to 200 characters: its requests are the "
        "agent's, whatever their callers say, and repeated retries are cut off.",
    )
    requests_per_minute: int | None = strawberry.field(
        default=None, description="Most requests in any 60 seconds."
    )
    tokens_per_minute: BigInt | None = strawberry.field(
        default=None, description="Tokens in any 60 seconds at which it is stopped."
    )


@strawberry.input(description="What to change of a key; what is left out stays.")
class VirtualKeyUpdateInput:
    """What to change of a key."""

    key_id: strawberry.ID = strawberry.field(description="The key.")
    expected_version: int = strawberry.field(description="The version you have seen.")
    name: str | None = strawberry.field(
        default=strawberry.UNSET, description="Name for people, up to 200 characters; not null."
    )
    expires_at: datetime | None = strawberry.field(
        default=strawberry.UNSET, description="From when on it works no more; null: it never ends."
    )
    tags: list[TagInput] | None = strawberry.field(
        default=strawberry.UNSET, description="All its labels, at most 20; null: none."
    )
    cost_center_id: strawberry.ID | None = strawberry.field(
        default=strawberry.UNSET,
        description="Where it is booked; null: where its owner is, else its team. For admins.",
    )
    pool_ids: list[strawberry.ID] | None = strawberry.field(
        default=strawberry.UNSET,
        description="All pools it shall draw on, at most 8; null: none. For admins.",
    )
    team_id: strawberry.ID | None = strawberry.field(
        default=strawberry.UNSET, description="The team it shall belong to; null: none, for admins."
    )
    owner_id: strawberry.ID | None = strawberry.field(
        default=strawberry.UNSET, description="The member it shall belong to; null: none."
    )

    def changes(self, place: UUID) -> KeyChanges:
        """Read what was given.

        Raises `InvalidInput`, `NotFound`.
        """
        found = KeyChanges()
        if given(self.name):
            found["name"] = required(self.name, "name")
        if given(self.expires_at):
            found["expires_at"] = self.expires_at
        if given(self.tags):
            found["tags"] = _tags(self.tags or ())
        if given(self.cost_center_id):
            found["cost_center_id"] = cost_center_in(self.cost_center_id, place)
        if given(self.pool_ids):
            found["pool_ids"] = pools_in(self.pool_ids, place)
        if given(self.team_id):
            found["team_id"] = expect_in(self.team_id, NodeKind.TEAM, "team", place)
        if given(self.owner_id):
            found["member_id"] = expect_in(self.owner_id, NodeKind.MEMBER, "member", place)
        return found


@strawberry.input(description="A key to give a new secret.")
class VirtualKeyRotateInput:
    """A key to give a new secret."""

    key_id: strawberry.ID = strawberry.field(description="The key.")
    idempotency_key: str = strawberry.field(
        description="A retry with the same value returns the key, the secret null."
    )
    grace_seconds: int = strawberry.field(
        default=0,
        description="How long older secrets work on, up to 30 days; 0 ends them at once. Of "
        "several only the newest two go on, and none longer than it would have.",
    )
    expected_version: int | None = strawberry.field(
        default=None, description="Refuse if the key has changed since this version."
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
        description="Whether an earlier call with this idempotency key did it."
    )
    errors: list[UserError] = strawberry.field(description="What you can mend.")


@strawberry.input(description="A key to revoke.")
class VirtualKeyRevokeInput:
    """A key to revoke."""

    key_id: strawberry.ID = strawberry.field(description="The key.")
    reason: str | None = strawberry.field(default=None, description="Why, for the record.")
    expected_version: int | None = strawberry.field(
        default=None, description="Refuse if the key has changed since this version."
    )


@strawberry.input(description="A key to disable or enable.")
class VirtualKeySetEnabledInput:
    """A key to disable or enable."""

    key_id: strawberry.ID = strawberry.field(description="The key.")
    enabled: bool = strawberry.field(description="Whether it shall work.")
    reason: str | None = strawberry.field(default=None, description="Why, for the record.")
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

        return _secret_payload(info, *await attempt(info, change))

    @mutation("Give a key a new secret, shown this once; the older ones work for a while.")
    async def virtual_key_rotate(
        self,
        info: Info,
        input: VirtualKeyRotateInput,  # noqa: A002
    ) -> VirtualKeySecretPayload:
        """Rotate a key."""

        async def change(work: Work) -> service.CreatedKey:
            key = expect(input.key_id, NodeKind.KEY, "key")
            return await rotate_key(
                work,
                key.organization_id,
                key.id,
                grace_s=input.grace_seconds,
                idempotency_key=input.idempotency_key,
                expected_version=input.expected_version,
            )

        return _secret_payload(info, *await attempt(info, change))

    @mutation("Change a key; effective on its next request.")
    async def virtual_key_update(
        self,
        info: Info,
        input: VirtualKeyUpdateInput,  # noqa: A002
    ) -> VirtualKeyPayload:
        """Change a key."""

        async def change(work: Work) -> models.VirtualKey:
            key = expect(input.key_id, NodeKind.KEY, "key")
            return await update_key(
                work,
                key.organization_id,
                key.id,
                input.changes(key.organization_id),
                expected_version=input.expected_version,
            )

        return _payload(info, *await attempt(info, change))

    @mutation("Revoke a key for good; effective on its next request.")
    async def virtual_key_revoke(
        self,
        info: Info,
        input: VirtualKeyRevokeInput,  # noqa: A002
    ) -> VirtualKeyPayload:
        """Revoke a key."""

        async def change(work: Work) -> models.VirtualKey:
            key = expect(input.key_id, NodeKind.KEY, "key")
            return await service.revoke_key(
                work,
                key.organization_id,
                key.id,
                reason=input.reason,
                expected_version=input.expected_version,
            )

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
                reason=input.reason,
                expected_version=input.expected_version,
            )

        return _payload(info, *await attempt(info, change))


def _secret_payload(
    info: Info, done: service.CreatedKey | None, errors: list[UserError]
) -> VirtualKeySecretPayload:
    now = info.context.backend.installation.now()
    return VirtualKeySecretPayload(
        virtual_key=None if done is None else key_of(done.key, now),
        secret=None if done is None else done.secret,
        replayed=done is not None and done.replayed,
        errors=errors,
    )


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
        cost_center_id=cost_center_in(wanted.cost_center_id, place.id),
        pool_ids=pools_in(wanted.pool_ids, place.id),
        expires_at=wanted.expires_at,
        tags=_tags(wanted.tags or ()),
        allowed_models=None if models_allowed is None else tuple(models_allowed),
        agent=wanted.agent,
        requests_per_minute=wanted.requests_per_minute,
        tokens_per_minute=wanted.tokens_per_minute,
    )


def _tags(tags: Sequence[TagInput]) -> dict[str, str]:
    found = {each.name: each.value for each in tags}
    if len(found) != len(tags):
        raise InvalidInput("A tag is given twice.", field=("tags",))
    return found
