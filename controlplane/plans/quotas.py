"""The limits of a plan on an organization that is on it.

Their names follow from the organization alone, and what they count belongs to it: another plan, or
another figure in the plan, changes how much is left and not what was used.
"""

from __future__ import annotations

from typing import Any
from uuid import UUID

from controlplane.limits.derived import derived_limit
from controlplane.limits.models import Period, Resource
from controlplane.plans.models import Plan

MONTH_SLOT = "plan/month"
DAY_SLOT = "plan/day"
MINUTE_SLOT = "plan/minute"


def plan_limits(organization_id: UUID, plan: Plan | None) -> list[dict[str, Any]]:
    """Write the limits of a plan as the engine reads them; days and months are those of UTC."""
    if plan is None:
        return []
    rolling = {"kind": "rolling", "seconds": 60}
    figures = (
        (MONTH_SLOT, "quota", _calendar(Period.MONTH), plan.requests_per_month),
        (DAY_SLOT, "quota", _calendar(Period.DAY), plan.requests_per_day),
        (MINUTE_SLOT, "rate", rolling, plan.requests_per_minute),
    )
    return [
        derived_limit(
            organization_id, slot, kind=kind, resource=Resource.REQUESTS, window=window, cap=cap
        )
        for slot, kind, window, cap in figures
        if cap is not None
    ]


def _calendar(period: Period) -> dict[str, Any]:
    return {"kind": "calendar", "period": period.value, "time_zone": "UTC"}
