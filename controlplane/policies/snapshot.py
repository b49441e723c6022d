"""The frozen policy and the keys of an organization, as the engine reads them.

Both are canonical JSON; a policy's version is the SHA-256 of all else in it, so that equal
policies have equal versions.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, SQLColumnExpression, and_, func
from sqlalchemy.ext.asyncio import AsyncSession

from controlplane.breakers.queries import window_offsets
from controlplane.canonical import canonical_hash, canonical_json
from controlplane.clock import nanoseconds
from controlplane.keys.models import KeySecret, KeyState, VirtualKey
from controlplane.limits.forms import forms_of, limit_form, order_of
from controlplane.limits.models import Limit, LimitKind, Mode, Resource
from controlplane.limits.nesting import EffectiveBreaker, Thresholds, Tree, effective_breakers
from controlplane.limits.queries import live_installation_limits, live_limits
from controlplane.limits.subjects import Scope
from controlplane.limits.windows import Rolling
from controlplane.plans.queries import plan_of
from controlplane.plans.quotas import plan_limits
from controlplane.policies.charging import charging
from controlplane.policies.models import Rule
from controlplane.policies.values import NAMES, SILENT, values_of
from controlplane.scope import owned
from controlplane.settings import ControlSettings
from controlplane.tenancy.models import Member, Team
from controlplane.tenancy.queries import organization_by_id
from controlplane.tenant_budgets.effects import budget_limits, with_budget
from controlplane.tenant_budgets.queries import budget_of
from controlplane.wallets.queries import balance_limits

# A variable list longer than this is loaded in parts: SQLite binds at most 32,766 parameters.
IDS_PER_QUERY_MAX = 10_000
# The engine's instants are unsigned 64 bits, to the year 2554; its latest one never comes.
INSTANT_NS_MAX = 2**64 - 1


async def organization_snapshot(
    session: AsyncSession, organization_id: UUID, settings: ControlSettings
) -> bytes:
    """Write all limits and rules in force, with inherited breakers spelled out.

    Raises `NotFound` when there is no such organization.
    """
    organization = await organization_by_id(session, organization_id)
    rows = list(await session.scalars(live_limits(organization_id).order_by(Limit.id)))
    tree = await _tree(session, organization_id)
    offsets = await window_offsets(session, organization_id)
    plan = await plan_of(session, organization)
    # These are no rows: they follow from the plan, the wallet and the tenant budget.
    followed = plan_limits(organization_id, plan)
    followed += await balance_limits(session, organization_id)
    budget = await budget_of(session, organization_id)
    followed += budget_limits(budget, organization.time_zone)
    content = {
        "organization_id": str(organization_id),
        "state": organization.state.value,
        "currency": organization.currency,
        "charging": await charging(session, organization, plan),
        "limits": _sorted(_reset(_limits(rows, tree, settings), offsets) + followed),
        "rules": with_budget(await _rules(session, organization_id), budget, organization_id),
    }
    return canonical_json({**content, "version": canonical_hash(content)})


async def installation_snapshot(session: AsyncSession) -> bytes:
    """Write the limits of providers and of the installation, which bind every organization."""
    rows = await session.scalars(live_installation_limits())
    limits = sorted((form for row in rows for form in forms_of(row)), key=order_of)
    content = {"limits": limits}
    return canonical_json({**content, "version": canonical_hash(content)})


async def keys_snapshot(
    session: AsyncSession, organization_id: UUID, key_ids: Collection[UUID] | None = None
) -> bytes:
    """Write keys with the digests of their secrets: all keys, or those named.

    The cost center of a key is its own, else its owner's, else its team's. Revoked keys are in it
    without digests, so that whoever held one lets go of it.
    """
    if key_ids is None:
        return canonical_json(await _keys(session, organization_id, None))
    found: list[dict[str, Any]] = []
    ordered = sorted(set(key_ids))
    for start in range(0, len(ordered), IDS_PER_QUERY_MAX):
        part = ordered[start : start + IDS_PER_QUERY_MAX]
        found += await _keys(session, organization_id, part)
    return canonical_json(found)


async def _tree(session: AsyncSession, organization_id: UUID) -> Tree:
    teams = await session.execute(
        owned(Team, organization_id).with_only_columns(Team.id).order_by(Team.id)
    )
    members = await session.execute(
        owned(Member, organization_id)
        .with_only_columns(Member.id, Member.team_id)
        .order_by(Member.id)
    )
    return Tree(
        organization_id,
        tuple(row.id for row in teams),
        tuple((row.id, row.team_id) for row in members),
    )


def _limits(rows: list[Limit], tree: Tree, settings: ControlSettings) -> list[dict[str, Any]]:
    plain = [form for row in rows if row.kind is not LimitKind.BREAKER for form in forms_of(row)]
    defaults: Mapping[int, int | None] = {
        60: settings.breaker_minute_nanos,
        3600: settings.breaker_hour_nanos,
    }
    breakers = effective_breakers(tree, _thresholds(rows), defaults)
    return plain + [_breaker(each) for each in breakers]


def _sorted(limits: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(limits, key=order_of)


def _reset(
    limits: list[dict[str, Any]], offsets: Mapping[UUID, tuple[int, int]]
) -> list[dict[str, Any]]:
    """Say of breakers that were reset what is not held against them, and until when."""
    by_name = {str(name): offset for name, offset in offsets.items()}
    for limit in limits:
        if limit["id"] in by_name:
            limit["offset"], limit["offset_until_ns"] = by_name[limit["id"]]
    return limits


def _thresholds(rows: list[Limit]) -> Thresholds:
    return {
        (row.scope_kind, row.scope_id, row.window_seconds): row.cap
        for row in rows
        if row.kind is LimitKind.BREAKER and row.window_seconds is not None
    }


def _breaker(breaker: EffectiveBreaker) -> dict[str, Any]:
    return limit_form(
        breaker.id,
        LimitKind.BREAKER,
        Scope(breaker.scope_kind, breaker.scope_id),
        Resource.SPEND,
        Rolling(breaker.seconds).form(),
        breaker.cap_nanos,
        Mode.METERED,
    )


async def _rules(session: AsyncSession, organization_id: UUID) -> list[dict[str, Any]]:
    rows = await session.scalars(owned(Rule, organization_id).order_by(Rule.id))
    return [
        {
            "scope": {"kind": row.scope_kind.value, "id": str(row.scope_id)},
            **{name: getattr(row, name) for name in NAMES},
        }
        for row in rows
        if values_of(row) != SILENT
    ]


async def _keys(
    session: AsyncSession, organization_id: UUID, key_ids: list[UUID] | None
) -> list[dict[str, Any]]:
    secrets = await _secrets(session, organization_id, key_ids)
    query = (
        owned(VirtualKey, organization_id)
        .outerjoin(Member, _is(Member, VirtualKey.member_id))
        .outerjoin(Team, _is(Team, VirtualKey.team_id))
        .add_columns(
            func.coalesce(
                VirtualKey.cost_center_id, Member.cost_center_id, Team.cost_center_id
            ).label("cost_center_id")
        )
        .order_by(VirtualKey.id)
    )
    if key_ids is not None:
        query = query.where(VirtualKey.id.in_(key_ids))
    return [
        _key(key, cost_center_id, secrets.get(key.id, []))
        for key, cost_center_id in await session.execute(query)
    ]


def _is(kind: type[Member | Team], row_id: SQLColumnExpression[UUID | None]) -> ColumnElement[bool]:
    """Join a row of the key's organization; no other's could be named by it."""
    return and_(kind.organization_id == VirtualKey.organization_id, kind.id == row_id)


async def _secrets(
    session: AsyncSession, organization_id: UUID, key_ids: list[UUID] | None
) -> dict[UUID, list[dict[str, Any]]]:
    query = owned(KeySecret, organization_id).with_only_columns(
        KeySecret.key_id, KeySecret.digest, KeySecret.expires_at
    )
    if key_ids is not None:
        query = query.where(KeySecret.key_id.in_(key_ids))
    found: dict[UUID, list[dict[str, Any]]] = {}
    for row in await session.execute(query.order_by(KeySecret.id)):
        secret = {"digest": row.digest.hex(), "expires_at_ns": _optional_ns(row.expires_at)}
        found.setdefault(row.key_id, []).append(secret)
    return found


def _key(
    key: VirtualKey, cost_center_id: UUID | None, secrets: list[dict[str, Any]]
) -> dict[str, Any]:
    return {
        "id": str(key.id),
        "organization_id": str(key.organization_id),
        "team_id": None if key.team_id is None else str(key.team_id),
        "member_id": None if key.member_id is None else str(key.member_id),
        "cost_center_id": None if cost_center_id is None else str(cost_center_id),
        "state": key.state.value,
        "expires_at_ns": _optional_ns(key.expires_at),
        "pools": key.pool_ids or [],
        "secrets": [] if key.state is KeyState.REVOKED else secrets,
    }


def _optional_ns(instant: datetime | None) -> int | None:
    return None if instant is None else min(nanoseconds(instant), INSTANT_NS_MAX)
