"""What requests use of prepaid balances: entries written with the money they pay."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from controlplane.clock import nanoseconds
from controlplane.wallets.models import EntryKind, Wallet
from controlplane.wallets.queries import (
    NOTHING_BOOKED,
    Standing,
    known_entries,
    standings,
)

BALANCE_NANOS_MIN = -(2**63 - 1)

USAGE_COLUMNS = (
    "id",
    "organization_id",
    "seq",
    "kind",
    "amount_nanos",
    "balance_after_nanos",
    "at_ns",
)


@dataclass(frozen=True, slots=True)
class Use:
    """What one request was charged; the id is that of its ledger entry."""

    id: UUID
    organization_id: UUID
    charge_nanos: int
    admitted_at_ns: int
    settled_at_ns: int


async def usage_rows(session: AsyncSession, uses: Sequence[Use]) -> list[tuple[Any, ...]]:
    """Make the entries of what was used of wallets, values of `USAGE_COLUMNS`.

    Left out are organizations without a wallet, requests admitted before it was opened, and what
    is booked already. Until the commit nobody else books on these wallets.
    """
    opened_ns = await _locked_wallets(session, {use.organization_id for use in uses})
    paid = [use for use in uses if _is_paid(use, opened_ns.get(use.organization_id))]
    if not paid:
        return []
    known = await known_entries(session, [use.id for use in paid])
    # Only now, when the locks are held: before, another process might have booked meanwhile.
    stand = await standings(session, opened_ns.keys())
    return _entries((use for use in paid if use.id not in known), stand)


async def _locked_wallets(session: AsyncSession, organization_ids: set[UUID]) -> Mapping[UUID, int]:
    """Lock wallets, in one order everywhere; gives since when requests are paid from each."""
    if not organization_ids:
        return {}
    rows = await session.execute(
        select(Wallet.organization_id, Wallet.opened_at)
        .where(Wallet.organization_id.in_(organization_ids))
        .order_by(Wallet.organization_id)
        .with_for_update()
    )
    return {row.organization_id: nanoseconds(row.opened_at) for row in rows}


def _is_paid(use: Use, opened_ns: int | None) -> bool:
    return opened_ns is not None and use.admitted_at_ns >= opened_ns


def _entries(uses: Iterable[Use], stand: Mapping[UUID, Standing]) -> list[tuple[Any, ...]]:
    seqs: dict[UUID, int] = {place: each.seq for place, each in stand.items()}
    balances: dict[UUID, int] = defaultdict(lambda: NOTHING_BOOKED.balance_nanos)
    balances.update({place: each.balance_nanos for place, each in stand.items()})
    rows = []
    for use in {each.id: each for each in uses}.values():
        place = use.organization_id
        seqs[place] = seqs.get(place, 0) + 1
        # What a column cannot hold would keep this and all other money from being booked.
        balances[place] = max(BALANCE_NANOS_MIN, balances[place] - use.charge_nanos)
        rows.append(
            (
                use.id.hex,
                place.hex,
                seqs[place],
                EntryKind.USAGE.value,
                -use.charge_nanos,
                balances[place],
                use.settled_at_ns,
            )
        )
    return rows
