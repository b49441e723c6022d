"""How the engine makes an organization's charge of what a request cost."""

from __future__ import annotations

from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession

from controlplane.exchange.queries import rates_of
from controlplane.plans.models import Plan
from controlplane.plans.service import fee_nanos
from controlplane.tenancy.models import Organization


async def charging(
    session: AsyncSession, organization: Organization, plan: Plan | None
) -> dict[str, Any]:
    """Write the exchange rates of an organization's currency and what its plan adds.

    Without a rate the list is empty: nothing is priced in this currency, and nothing passes.
    """
    rates = await rates_of(session, organization.currency)
    return {
        "rates": [{"from_ns": each.from_ns, "picos": each.picos} for each in rates],
        "markup_ppm": 0 if plan is None else plan.markup_ppm,
        "fee_nanos": fee_nanos(plan, organization.currency),
    }
