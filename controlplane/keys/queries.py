"""Reads of virtual keys."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Select, and_, exists, false, func, or_, true
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement

from controlplane.authz import Action, Caller, Target
from controlplane.inputs import checked_text
from controlplane.keys.models import KEY_NAME_LENGTH_MAX, KeySecret, KeyState, VirtualKey
from controlplane.scope import get_owned, owned, within_reach
from controlplane.tenancy.models import Member, Team


class JsonPairs(FunctionElement[str]):
    """The names and values of a JSON object as rows.

    A path into it would not do: SQLite finds no name with a quotation mark or an accent that way.
    """

    inherit_cache = True


@compiles(JsonPairs, "sqlite")
def _pairs_on_sqlite(element: JsonPairs, compiler: SQLCompiler, **options: Any) -> str:
    return f"json_each({compiler.process(element.clauses, **options)})"


@compiles(JsonPairs, "postgresql")
def _pairs_on_postgresql(element: JsonPairs, compiler: SQLCompiler, **options: Any) -> str:
    return f"json_each_text({compiler.process(element.clauses, **options)})"


@dataclass(frozen=True, slots=True)
class KeyFilter:
    """Which keys to show; statuses are key states and `expired`, none meaning any.

    `text` is looked for in names, in any case; `cost_center_id` is the one a key is booked on;
    `tag` is a name and a value.
    """

    statuses: frozenset[str] = frozenset()
    team_id: UUID | None = None
    member_id: UUID | None = None
    text: str | None = None
    cost_center_id: UUID | None = None
    tag: tuple[str, str] | None = None
    expires_before: datetime | None = None


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


async def secrets_of(session: AsyncSession, organization_id: UUID, key_id: UUID) -> list[KeySecret]:
    """Load the secrets of a key, the newest first."""
    query = owned(KeySecret, organization_id).where(KeySecret.key_id == key_id)
    return list(await session.scalars(query.order_by(KeySecret.id.desc())))


def booked_on(organization_id: UUID) -> ColumnElement[UUID | None]:
    """Write the cost center a key is booked on: its own, else its owner's, else its team's."""
    owners = (
        owned(Member, organization_id)
        .where(Member.id == VirtualKey.member_id)
        .with_only_columns(Member.cost_center_id)
    )
    teams = (
        owned(Team, organization_id)
        .where(Team.id == VirtualKey.team_id)
        .with_only_columns(Team.cost_center_id)
    )
    return func.coalesce(
        VirtualKey.cost_center_id,
        owners.correlate(VirtualKey).scalar_subquery(),
        teams.correlate(VirtualKey).scalar_subquery(),
    )


def matching(wanted: KeyFilter, organization_id: UUID, now: datetime) -> ColumnElement[bool]:
    """Write a filter as a condition.

    Raises `InvalidInput` for a text that no name has.
    """
    found: list[ColumnElement[bool]] = []
    if wanted.statuses:
        found.append(or_(false(), *(_has_status(each, now) for each in wanted.statuses)))
    if wanted.team_id is not None:
        found.append(VirtualKey.team_id == wanted.team_id)
    if wanted.member_id is not None:
        found.append(VirtualKey.member_id == wanted.member_id)
    if wanted.text is not None:
        text = checked_text(wanted.text, "query", KEY_NAME_LENGTH_MAX)
        found.append(VirtualKey.name.icontains(text, autoescape=True))
    if wanted.cost_center_id is not None:
        found.append(booked_on(organization_id) == wanted.cost_center_id)
    if wanted.tag is not None:
        found.append(_has_tag(*wanted.tag))
    if wanted.expires_before is not None:
        found.append(VirtualKey.expires_at < wanted.expires_before)
    return and_(true(), *found)


def _has_tag(name: str, value: str) -> ColumnElement[bool]:
    pairs = JsonPairs(VirtualKey.tags).table_valued("key", "value")
    return exists().where(pairs.c.key == name, pairs.c.value == value)


def _has_status(status: str, now: datetime) -> ColumnElement[bool]:
    is_over = and_(VirtualKey.expires_at.is_not(None), VirtualKey.expires_at <= now)
    if status == "expired":
        return and_(is_over, VirtualKey.state != KeyState.REVOKED)
    state = KeyState(status)
    if state is KeyState.REVOKED:
        return VirtualKey.state == state
    return and_(VirtualKey.state == state, ~is_over)
