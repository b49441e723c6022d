"""How a limit's row is created, changed, archived and revived."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from controlplane.audit.service import facts, record
from controlplane.context import Work
from controlplane.limits.models import Hold, Limit, LimitKind, Mode, Resource, WindowKind
from controlplane.limits.nesting import breaker_id
from controlplane.limits.queries import limit_in_slot
from controlplane.limits.subjects import Scope
from controlplane.limits.windows import Rolling, Window, slot_of


@dataclass(frozen=True, slots=True)
class LimitValues:
    """What a limit shall be; `cap` in nano units, requests or tokens."""

    kind: LimitKind
    scope: Scope
    resource: Resource
    window: Window
    cap: int
    mode: Mode

    @property
    def slot(self) -> str:
        """Spell what the scope has one limit of this kind for."""
        return slot_of(None, self.resource, self.window)


async def put_limit(work: Work, organization_id: UUID, values: LimitValues) -> Limit:
    """Create the limit, change the one in its slot, or revive it."""
    row = await limit_in_slot(work.session, organization_id, values.scope, values.kind, values.slot)
    if row is None:
        return await _insert(work, organization_id, values)
    before = facts(row)
    _assign(row, values)
    row.archived_at = None
    if work.session.is_modified(row):
        await work.session.flush()
        action = f"{values.kind.value}.change"
        record(work, action, row, organization_id=organization_id, before=before, after=facts(row))
    return row


async def archive_limit(work: Work, row: Limit) -> None:
    """Put a limit out of force."""
    before = facts(row)
    row.archived_at = work.now
    await work.session.flush()
    action = f"{row.kind.value}.archive"
    record(work, action, row, organization_id=row.organization_id, before=before, after=facts(row))


async def _insert(work: Work, organization_id: UUID, values: LimitValues) -> Limit:
    row = Limit(
        id=_id_for(work, values),
        organization_id=organization_id,
        kind=values.kind,
        scope_kind=values.scope.kind,
        scope_id=values.scope.id,
        slot=values.slot,
        resource=values.resource,
        hold=Hold.BOUND,
        created_at=work.now,
    )
    _assign(row, values)
    work.session.add(row)
    await work.session.flush()
    action = f"{values.kind.value}.create"
    record(work, action, row, organization_id=organization_id, after=facts(row))
    return row


def _id_for(work: Work, values: LimitValues) -> UUID:
    """Name a breaker by its scope, so that its name stays when its threshold becomes its own."""
    if values.kind is LimitKind.BREAKER and isinstance(values.window, Rolling):
        return breaker_id(values.scope.kind, values.scope.id, values.window.seconds)
    return work.new_id()


def _assign(row: Limit, values: LimitValues) -> None:
    row.cap = values.cap
    row.mode = values.mode
    if isinstance(values.window, Rolling):
        row.window_kind = WindowKind.ROLLING
        row.window_seconds = values.window.seconds
    else:
        row.window_kind = WindowKind.CALENDAR
        row.window_period = values.window.period
        row.window_time_zone = values.window.time_zone
