"""What a tenant budget becomes in the snapshot: limits of the organization and a part of its rule.

They follow from the one row of the budget, so that they change together or not at all, and keep
their names whatever the budget says.

At the monthly budget, by action:
- REJECT: refused, 402 tenant_budget_exceeded. The hard stop is reached by overruns alone.
- DOWNGRADE: the cheaper model serves, however much is spent. There is no hard stop.
- DOWNGRADE_THEN_FAIL_CLOSED: the cheaper model serves; at the hard stop all are refused.
- CONFIRM: passes with a confirmation; at the hard stop all are refused, confirmed or not.
- QUEUE: waits for room, then is refused. The hard stop is reached by overruns alone.

A request for the cheaper model itself passes above the monthly budget as it is. The daily soft
limit counts and is told about; it never refuses. Months and days are those of the organization's
time zone.
"""

from __future__ import annotations

from typing import Any
from uuid import UUID

from controlplane.limits.derived import derived_limit
from controlplane.limits.models import Period, Resource, ScopeKind
from controlplane.tenant_budgets.models import OverLimitAction, TenantBudget

MONTH_SLOT = "tenant_budget/month"
HARD_STOP_SLOT = "tenant_budget/hard_stop"
DAY_SLOT = "tenant_budget/day"

_NOTIFY = {"percent": 100, "action": "notify"}
_REFUSE = {"percent": 100, "action": "refuse", "code": None, "status": None}
# These let requests pass above the monthly budget, on their conditions.
_PASSING = frozenset(
    {
        OverLimitAction.DOWNGRADE,
        OverLimitAction.DOWNGRADE_THEN_FAIL_CLOSED,
        OverLimitAction.CONFIRM,
    }
)


def budget_limits(budget: TenantBudget | None, time_zone: str) -> list[dict[str, Any]]:
    """Write the limits of a tenant budget as the engine reads them."""
    if budget is None:
        return []
    mode = "soft" if budget.over_limit_action in _PASSING else "hard"
    month, day = (_calendar(period, time_zone) for period in (Period.MONTH, Period.DAY))
    limits = [_limit(budget, MONTH_SLOT, month, budget.monthly_budget_nanos, mode, _steps(budget))]
    if budget.hard_stop_nanos is not None:
        steps = [_NOTIFY, _REFUSE]
        limits.append(_limit(budget, HARD_STOP_SLOT, month, budget.hard_stop_nanos, "hard", steps))
    if budget.daily_soft_limit_nanos is not None:
        cap = budget.daily_soft_limit_nanos
        limits.append(_limit(budget, DAY_SLOT, day, cap, "soft", [_NOTIFY]))
    return limits


def with_budget(
    rules: list[dict[str, Any]], budget: TenantBudget | None, organization_id: UUID
) -> list[dict[str, Any]]:
    """Add what a tenant budget allows and blocks to the rules of an organization.

    There is one rule for a scope: the organization's own, if it has one, is narrowed.
    """
    if budget is None or (budget.allowed_model_tiers is None and not budget.blocked_features):
        return rules
    scope = {"kind": ScopeKind.ORGANIZATION.value, "id": str(organization_id)}
    own = next((each for each in rules if each["scope"] == scope), None)
    known: dict[str, Any] = {"scope": scope, "models": None} if own is None else own
    narrowed = {
        **known,
        "tiers": _both(known.get("tiers"), budget.allowed_model_tiers),
        "features_blocked": sorted({*known.get("features_blocked", ()), *budget.blocked_features}),
    }
    return [each for each in rules if each is not own] + [narrowed]


def _steps(budget: TenantBudget) -> list[dict[str, Any]]:
    action: dict[str, Any]
    if budget.over_limit_action is OverLimitAction.REJECT:
        action = _REFUSE
    elif budget.over_limit_action is OverLimitAction.CONFIRM:
        action = {"percent": 100, "action": "confirm"}
    elif budget.over_limit_action is OverLimitAction.QUEUE:
        action = {"percent": 100, "action": "queue", "timeout_s": budget.queue_timeout_s}
    else:
        action = {"percent": 100, "action": "downgrade", "model": budget.downgrade_model}
    return [_NOTIFY, action]


def _limit(
    budget: TenantBudget,
    slot: str,
    window: dict[str, Any],
    cap: int,
    mode: str,
    steps: list[dict[str, Any]],
) -> dict[str, Any]:
    limit = derived_limit(
        budget.organization_id,
        slot,
        kind="budget",
        resource=Resource.SPEND,
        window=window,
        cap=cap,
    )
    return {**limit, "mode": mode, "hold": "expected", "steps": steps}


def _calendar(period: Period, time_zone: str) -> dict[str, Any]:
    return {"kind": "calendar", "period": period.value, "time_zone": time_zone}


def _both(one: list[str] | None, other: list[str] | None) -> list[str] | None:
    """Intersect two lists of what is allowed; None allows all."""
    if one is None or other is None:
        return other if one is None else one
    return sorted(set(one) & set(other))
