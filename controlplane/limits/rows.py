"""How a limit's row is created, changed, archived and revived."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID, uuid5

from sqlalchemy import func

from controlplane.audit.service import facts, record
from controlplane.canonical import canonical_json
from controlplane.columns import Json
from controlplane.context import Work
from controlplane.errors import Conflict, LimitExceeded
from controlplane.limits.models import Hold, Limit, LimitFields, LimitKind, Mode, Resource
from controlplane.limits.nesting import breaker_id
from controlplane.limits.periods import change_window
from controlplane.limits.queries import limit_in_slot, live_limits
from controlplane.limits.subjects import Scope
from controlplane.limits.where import Where
from controlplane.limits.windows import Rolling, Window, put_window, slot_of

# A scope has at most this many limits of one kind, and an organization this many of all.
LIMITS_PER_SCOPE_MAX = 20
LIMITS_MAX = 100_000


@dataclass(frozen=True, slots=True)
class LimitValues:
    """What a limit shall be; `cap` in nano units, requests or tokens."""

    kind: LimitKind
    scope: Scope
    resource: Resource
    window: Window
    cap: int
    mode: Mode
    hold: Hold = Hold.BOUND
    where: Where | None = None
    steps: tuple[Json, ...] = ()
    cooldown_s: int | None = None

    @property
    def slot(self) -> str:
        """Spell what the scope has one limit of this kind for."""
        return slot_of(self.where, self.resource, self.window)


async def put_limit(
    work: Work, organization_id: UUID, values: LimitValues, row: Limit | None = None
) -> Limit:
    """Create the limit, change the one in its slot, or revive it.

    A `row` in force is changed instead, into another slot if need be.

    Raises `Conflict` when that is taken, `LimitExceeded` when the scope has too many.
    """
    if row is None:
        row = await _in_slot(work, organization_id, values)
    elif row.slot != values.slot:
        await _free_slot(work, organization_id, values)
    if row is None:
        return await _insert(work, organization_id, values)
    if row.archived_at is not None:
        await _refuse_too_many(work, organization_id, values)
    before = facts(row)
    assign(row, values, work)
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


def assign(row: LimitFields, values: LimitValues, work: Work) -> None:
    """Write the values into a row; a limit in force keeps its window until that has ended."""
    if row.archived_at is None:
        change_window(row, values.window, work.now)
    else:
        put_window(row, values.window)
        row.next_window = row.next_from = row.archived_at = None
    for name in ("slot", "cap", "mode", "hold", "cooldown_s"):
        setattr(row, name, getattr(values, name))
    steps = list(values.steps) or None
    if row.steps != steps:
        row.steps = steps


def pair_id_of(scope: Scope, where: Where | None) -> UUID:
    """Name the two rates that a scope has for some of its requests, or for all."""
    return scope.id if where is None else uuid5(scope.id, canonical_json(where).decode())


def fill(row: LimitFields, values: LimitValues, work: Work) -> None:
    """Write all of a new row but its id and owner."""
    row.kind, row.resource, row.where = values.kind, values.resource, values.where
    row.scope_kind, row.scope_id, row.label = (
        values.scope.kind,
        values.scope.id,
        values.scope.label,
    )
    row.slot, row.cap, row.mode, row.hold = values.slot, values.cap, values.mode, values.hold
    row.steps, row.cooldown_s = list(values.steps) or None, values.cooldown_s
    row.created_at = work.now
    put_window(row, values.window)


async def _in_slot(work: Work, organization_id: UUID, values: LimitValues) -> Limit | None:
    return await limit_in_slot(
        work.session, organization_id, values.scope, values.kind, values.slot
    )


async def _free_slot(work: Work, organization_id: UUID, values: LimitValues) -> None:
    """Take the slot from a limit that is out of force; that one is found by its id alone then."""
    other = await _in_slot(work, organization_id, values)
    if other is None:
        return
    if other.archived_at is None:
        raise Conflict("There is another limit over this window.", field=("period",))
    other.slot = f"archived/{other.id}"
    await work.session.flush()


async def _insert(work: Work, organization_id: UUID, values: LimitValues) -> Limit:
    await _refuse_too_many(work, organization_id, values)
    row = Limit(id=_id_for(work, values), organization_id=organization_id)
    fill(row, values, work)
    if values.kind is LimitKind.RATE:
        row.pair_id = pair_id_of(values.scope, values.where)
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


async def _refuse_too_many(work: Work, organization_id: UUID, values: LimitValues) -> None:
    count = live_limits(organization_id).with_only_columns(func.count())
    of_scope = count.where(
        Limit.scope_kind == values.scope.kind,
        Limit.scope_id == values.scope.id,
        Limit.kind == values.kind,
    )
    if (await work.session.scalar(of_scope) or 0) >= LIMITS_PER_SCOPE_MAX:
        raise LimitExceeded(
            f"A scope has at most {LIMITS_PER_SCOPE_MAX} limits of a kind.",
            maximum=LIMITS_PER_SCOPE_MAX,
        )
    if (await work.session.scalar(count) or 0) >= LIMITS_MAX:
        raise LimitExceeded(f"An organization has at most {LIMITS_MAX} limits.", maximum=LIMITS_MAX)
