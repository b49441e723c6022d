"""Where figures of limits come from: an engine in this process, or the ledger."""

from __future__ import annotations

from enum import StrEnum
from uuid import UUID

from controlplane.api.fields import enumeration
from controlplane.api.request import Info
from controlplane.limits.settled import CountedLimit
from controlplane.limits.state import LimitState


class CounterSource(StrEnum):
    """Where a figure comes from."""

    LIVE = "live"
    LEDGER = "ledger"


enumeration(
    CounterSource,
    "CounterSource",
    "Where figures are from.",
    {
        CounterSource.LIVE: "The counters that decide, requests under way included.",
        CounterSource.LEDGER: "What is booked, a moment behind, without requests under way.",
    },
)


async def state_of(
    info: Info, organization_id: UUID, limit: CountedLimit
) -> tuple[LimitState, CounterSource]:
    """Read the live state of a limit, else what the ledger knows of it."""
    live = info.context.limit_state(organization_id, limit.scope, limit.id)
    if live is not None:
        return live, CounterSource.LIVE
    settled = await info.context.loaders.settled.load((organization_id, limit))
    if settled is None:
        raise AssertionError(f"the ledger says nothing of limit {limit.id}")
    return settled, CounterSource.LEDGER
