"""Editing a virtual key that exists."""

from __future__ import annotations

from datetime import datetime
from typing import TypedDict
from uuid import UUID

from controlplane.audit.service import facts, record
from controlplane.authz import Action, Reach, Target, may, require
from controlplane.context import Work
from controlplane.errors import NotPermitted
from controlplane.inputs import checked_text
from controlplane.keys.models import KEY_NAME_LENGTH_MAX, VirtualKey
from controlplane.keys.queries import target_of
from controlplane.keys.service import (
    check_owner,
    check_seen,
    checked_expiry,
    checked_tags,
    key_to_change,
    refuse_revoked,
)
from controlplane.limits.allotment import check_allotment
from controlplane.pools.service import checked_pools
from controlplane.tenancy.service import check_cost_center, key_changed


class KeyChanges(TypedDict, total=False):
    """What shall change of a key; what is left out stays, None takes away."""

    name: str
    expires_at: datetime | None
    tags: dict[str, str]
    cost_center_id: UUID | None
    team_id: UUID | None
    member_id: UUID | None
    pool_ids: tuple[UUID, ...]


async def update_key(
    work: Work,
    organization_id: UUID,
    key_id: UUID,
    changes: KeyChanges,
    *,
    expected_version: int,
) -> VirtualKey:
    """Change a key; its next request is under the limits of its new team and owner.

    What it spent stays with the team and owner it had then.

    Raises `InvalidInput`, `Conflict` for a revoked key or an archived cost center or pool,
    `CeilingExceeded` when its budgets are more than its new team has to share out,
    `StaleVersion`, `NotFound`, `NotPermitted`.
    """
    key = await key_to_change(work, organization_id, key_id)
    refuse_revoked(key)
    check_seen(key, expected_version)
    target = await _new_target(work, key, changes)
    cost_center_id = await _new_cost_center(work, key, target, changes)
    expires_at = changes.get("expires_at", key.expires_at)
    if expires_at != key.expires_at:
        checked_expiry(work, expires_at)
    name = checked_text(changes.get("name", key.name), "name", KEY_NAME_LENGTH_MAX)
    tags = checked_tags(changes.get("tags", key.tags))
    pool_ids = await _new_pools(work, key, changes)
    before, old_team_id = facts(key), key.team_id
    key.name, key.expires_at, key.tags, key.pool_ids = name, expires_at, tags, pool_ids
    key.team_id, key.member_id = target.team_id, target.member_id
    key.cost_center_id = cost_center_id
    if facts(key) != before:
        await work.session.flush()
        if key.team_id != old_team_id:
            await check_allotment(work, organization_id, key.team_id, field=("teamId",))
        after = facts(key)
        record(work, "key.update", key, organization_id=organization_id, before=before, after=after)
        await key_changed(work, organization_id, key.id, policy=False)
    return key


async def _new_target(work: Work, key: VirtualKey, changes: KeyChanges) -> Target:
    """Find to whom the key shall belong; nobody gives a key out of its own reach."""
    team_id = changes.get("team_id", key.team_id)
    member_id = changes.get("member_id", key.member_id)
    await check_owner(
        work,
        key.organization_id,
        team_id=team_id if team_id != key.team_id else None,
        member_id=member_id if member_id != key.member_id else None,
    )
    target = Target(key.organization_id, team_id=team_id, member_id=member_id)
    is_taken_out = team_id is None and key.team_id is not None
    reach = work.caller.reach(Action.KEYS_WRITE, key.organization_id)
    if is_taken_out and reach is not Reach.ORGANIZATION:
        raise NotPermitted("Your role cannot take a key out of the limits of its team.")
    if not may(work.caller, Action.KEYS_WRITE, target):
        raise NotPermitted("Your role cannot give a key to where it does not reach.")
    return target


async def _new_cost_center(
    work: Work, key: VirtualKey, target: Target, changes: KeyChanges
) -> UUID | None:
    cost_center_id = changes.get("cost_center_id", key.cost_center_id)
    if cost_center_id != key.cost_center_id:
        # To take one away also changes what is booked where.
        require(work.caller, Action.COST_CENTERS_WRITE, target_of(key), "key")
        await check_cost_center(work, target, cost_center_id)
    return cost_center_id


async def _new_pools(work: Work, key: VirtualKey, changes: KeyChanges) -> list[str] | None:
    if "pool_ids" not in changes:
        return key.pool_ids
    return await checked_pools(work, key.organization_id, changes["pool_ids"], key.pool_ids)
