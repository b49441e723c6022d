"""Reads of virtual keys."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import ColumnElement, Select, and_, false, or_, true
from sqlalchemy.ext.asyncio import AsyncSession

from controlplane.authz import Action, Caller, Target
from controlplane.keys.models import KeyState, VirtualKey
from controlplane.scope import get_owned, owned, within_reach


@dataclass(frozen=True, slots=True)
class KeyFilter:
    """Which keys to show; statuses are key states and `expired`, none meaning any."""

    statuses: frozenset[str] = frozenset()
    team_id: UUID | None = None
    member_id: UUID | None = None


async def key_by_id(session: AsyncSession, organization_id: UUID, key_id: UUID) -> VirtualKey:
    """Load a key of an organization.

    Raises `NotFound`.
    """
    return await get_owned(session, VirtualKey, organization_id, key_id, "key")


def target_of(key: VirtualKey) -> Target:
    """Tell to whom a key belongs, for the question who may touch it."""
    return Target(key.organization_id, team_id=key.team_id, member_id=key.member_id)


def visible_keys(caller: Caller, organization_id: UUID) -> Select[VirtualKey]:
    """Select the keys that a caller may see."""
    return owned(VirtualKey, organization_id).where(
        within_reach(
            caller,
            Action.STRUCTURE_READ,
            organization_id,
            team=VirtualKey.team_id,
            member=VirtualKey.member_id,
        )
    )


def matching(wanted: KeyFilter, now: datetime) -> ColumnElement[bool]:
    """Write a filter as a condition."""
    found: list[ColumnElement[bool]] = []
    if wanted.statuses:
        found.append(or_(false(), *(_has_status(each, now) for each in wanted.statuses)))
    if wanted.team_id is not None:
        found.append(VirtualKey.team_id == wanted.team_id)
    if wanted.member_id is not None:
        found.append(VirtualKey.member_id == wanted.member_id)
    return and_(true(), *found)


def _has_status(status: str, now: datetime) -> ColumnElement[bool]:
    is_over = and_(VirtualKey.expires_at.is_not(None), VirtualKey.expires_at <= now)
    if status == "expired":
        return and_(is_over, VirtualKey.state != KeyState.REVOKED)
    state = KeyState(status)
    if state is KeyState.REVOKED:
        return VirtualKey.state == state
    return and_(VirtualKey.state == state, ~is_over)
