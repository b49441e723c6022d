"""Moving budget between the members and keys of a team, without anybody's ticket."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from controlplane.audit.service import facts, record
from controlplane.authz import Target, require
from controlplane.context import Work
from controlplane.errors import Conflict, InvalidInput
from controlplane.keys.idempotency import earlier_result, remember_result
from controlplane.limits.allotment import ceiling_fault, ceilings_of, check_allotment
from controlplane.limits.models import CAP_MAX, Limit, LimitKind, Mode, ScopeKind
from controlplane.limits.periods import latest_window, window_at
from controlplane.limits.service import action_for
from controlplane.limits.subjects import scope_of_row, target_of_scope
from controlplane.money import format_money
from controlplane.scope import not_found, owned, subject_of
from controlplane.tenancy.service import policy_changed
from controlplane.versions import check_version

_CHILDREN = frozenset({ScopeKind.MEMBER, ScopeKind.MEMBER_IN_TEAM, ScopeKind.KEY})


@dataclass(frozen=True, slots=True)
class Move:
    """How much to take from one budget and give to another, in nano units, of which versions."""

    from_id: UUID
    to_id: UUID
    amount_nanos: int
    from_version: int
    to_version: int


@dataclass(frozen=True, slots=True)
class Moved:
    """Both budgets as they are; `replayed` when an earlier call moved it."""

    giver: Limit
    taker: Limit
    replayed: bool


async def move_budget(
    work: Work, organization_id: UUID, move: Move, *, idempotency_key: str
) -> Moved:
    """Take from the cap of one budget and add it to another's, in one step.

    Both are of one window and of members or keys of one team. What they have counted stays; the
    taker's cap never passes the team's. The same call with the same idempotency key moves nothing
    again.

    Raises `InvalidInput`, `Conflict` when they do not belong together, `CeilingExceeded`,
    `StaleVersion`, `IdempotencyMismatch`, `NotFound`, `NotPermitted`.
    """
    giver, giver_target = await _budget(work, organization_id, move.from_id)
    taker, taker_target = await _budget(work, organization_id, move.to_id)
    request = _request(move)
    if await earlier_result(work, organization_id, idempotency_key, request) is not None:
        return Moved(giver, taker, replayed=True)
    for row in (giver, taker):
        if row.archived_at is not None:
            raise Conflict("A budget that was lifted gives and takes nothing.")
    check_version(giver.version, move.from_version, subject_of(giver))
    check_version(taker.version, move.to_version, subject_of(taker))
    _check_amount(giver, taker, move)
    team_id = _check_together(work, (giver, giver_target), (taker, taker_target))
    await _check_ceiling(work, taker, team_id, taker.cap + move.amount_nanos)
    await _put(work, giver, taker, move.amount_nanos)
    await check_allotment(work, organization_id, team_id, field=("amount",))
    await remember_result(work, organization_id, idempotency_key, request, giver.id)
    await policy_changed(work, organization_id)
    return Moved(giver, taker, replayed=False)


def _request(move: Move) -> dict[str, str | int]:
    return {
        "operation": "budget.move",
        "from": str(move.from_id),
        "to": str(move.to_id),
        "amount": move.amount_nanos,
        "from_version": move.from_version,
        "to_version": move.to_version,
    }


async def _budget(work: Work, organization_id: UUID, limit_id: UUID) -> tuple[Limit, Target]:
    """Load a budget whose cap the caller may set, in force or lifted."""
    query = owned(Limit, organization_id).where(
        Limit.id == limit_id, Limit.kind == LimitKind.BUDGET
    )
    row = await work.session.scalar(query)
    if row is None:
        raise not_found("budget")
    scope = scope_of_row(row)
    target = await target_of_scope(work.session, organization_id, scope)
    require(work.caller, action_for(scope), target, "budget")
    return row, target


def _check_amount(giver: Limit, taker: Limit, move: Move) -> None:
    if giver.id == taker.id:
        raise InvalidInput("Name two budgets.", field=("toBudgetId",))
    if move.amount_nanos < 1:
        raise InvalidInput("Give an amount above zero.", field=("amount",))
    if move.amount_nanos > giver.cap:
        raise InvalidInput(
            f"There is no more than {format_money(giver.cap)} to move.", field=("amount",)
        )
    if taker.cap + move.amount_nanos > CAP_MAX:
        raise InvalidInput("The other budget would be too large.", field=("amount",))


def _check_together(work: Work, giver: tuple[Limit, Target], taker: tuple[Limit, Target]) -> UUID:
    """Find the team whose budget both share."""
    for row, _ in (giver, taker):
        if row.scope_kind not in _CHILDREN:
            raise Conflict("Budgets move between members and keys.")
    team_id = giver[1].team_id
    if team_id is None or taker[1].team_id != team_id:
        raise Conflict("Both budgets must be in one team.", field=("toBudgetId",))
    windows = {
        (row.slot, window_at(row, work.now), latest_window(row)) for row, _ in (giver, taker)
    }
    if len(windows) != 1:
        raise Conflict(
            "Both budgets must count the same requests over the same window.",
            field=("toBudgetId",),
        )
    if (giver[0].mode is Mode.SHADOW) != (taker[0].mode is Mode.SHADOW):
        raise Conflict("A shadow budget is no money to give away.", field=("fromBudgetId",))
    return team_id


async def _check_ceiling(work: Work, taker: Limit, team_id: UUID, cap_nanos: int) -> None:
    for ceiling in await ceilings_of(work, taker.organization_id, team_id, taker.slot):
        if cap_nanos > ceiling.cap:
            raise ceiling_fault(ceiling, cap_nanos, ("amount",))


async def _put(work: Work, giver: Limit, taker: Limit, amount_nanos: int) -> None:
    before = {"from": facts(giver), "to": facts(taker)}
    giver.cap -= amount_nanos
    taker.cap += amount_nanos
    await work.session.flush()
    record(
        work,
        "budget.move",
        giver,
        organization_id=giver.organization_id,
        before=before,
        after={"from": facts(giver), "to": facts(taker)},
    )
