"""Reads of wallets."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import Select, func, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import aliased

from controlplane.clock import nanoseconds
from controlplane.limits.derived import derived_id, derived_limit
from controlplane.limits.models import Resource
from controlplane.scope import get_owned, not_found, owned
from controlplane.wallets.models import BY_PEOPLE, Wallet, WalletEntry

BALANCE_SLOT = "wallet/balance"


@dataclass(frozen=True, slots=True)
class Standing:
    """Where the entries of a wallet have come to: the last number, and the sum of all."""

    seq: int
    balance_nanos: int


NOTHING_BOOKED = Standing(0, 0)


async def wallet_of(session: AsyncSession, organization_id: UUID) -> Wallet | None:
    """Find the wallet of an organization."""
    return await session.scalar(owned(Wallet, organization_id))


async def locked_wallet(session: AsyncSession, organization_id: UUID) -> Wallet:
    """Load the wallet of an organization, and keep others from booking on it until the commit.

    Raises `NotFound`.
    """
    query = owned(Wallet, organization_id).with_for_update()
    row = await session.scalar(query.execution_options(populate_existing=True))
    if row is None:
        raise not_found("wallet")
    return row


async def entry_by_id(session: AsyncSession, organization_id: UUID, entry_id: UUID) -> WalletEntry:
    """Load an entry.

    Raises `NotFound`.
    """
    return await get_owned(session, WalletEntry, organization_id, entry_id, "wallet entry")


async def standings(
    session: AsyncSession, organization_ids: Collection[UUID]
) -> dict[UUID, Standing]:
    """Tell where the wallets of some organizations stand; at the cost of a look-up each."""
    last = aliased(WalletEntry)
    newest = (
        select(last.seq)
        .where(last.organization_id == Wallet.organization_id)
        .order_by(last.seq.desc())
        .limit(1)
        .correlate(Wallet)
        .scalar_subquery()
    )
    rows = await session.execute(
        select(WalletEntry.organization_id, WalletEntry.seq, WalletEntry.balance_after_nanos)
        .join(Wallet, Wallet.organization_id == WalletEntry.organization_id)
        .where(Wallet.organization_id.in_(organization_ids), WalletEntry.seq == newest)
    )
    return {row.organization_id: Standing(row.seq, row.balance_after_nanos) for row in rows}


async def standing_of(session: AsyncSession, organization_id: UUID) -> Standing:
    """Tell where the wallet of an organization stands."""
    found = await standings(session, [organization_id])
    return found.get(organization_id, NOTHING_BOOKED)


async def credit_nanos(session: AsyncSession, organization_id: UUID) -> int:
    """Sum what people put into a wallet and took from it, without what requests used."""
    query = select(func.sum(WalletEntry.amount_nanos)).where(
        WalletEntry.organization_id == organization_id, BY_PEOPLE
    )
    return int(await session.scalar(query) or 0)


async def known_entries(session: AsyncSession, entry_ids: Sequence[UUID]) -> set[UUID]:
    """Tell which of some entries are booked already."""
    rows = await session.scalars(select(WalletEntry.id).where(WalletEntry.id.in_(entry_ids)))
    return set(rows)


def page_of_entries(
    organization_id: UUID, before_seq: int | None, *, include_usage: bool
) -> Select[WalletEntry]:
    """Select the entries of a wallet, the last booked first, from a place on."""
    query = owned(WalletEntry, organization_id).order_by(WalletEntry.seq.desc())
    if not include_usage:
        query = query.where(BY_PEOPLE)
    return query if before_seq is None else query.where(WalletEntry.seq < before_seq)


def balance_limit_id(organization_id: UUID) -> UUID:
    """Name the limit that keeps an organization within its balance."""
    return derived_id(organization_id, BALANCE_SLOT)


async def balance_limits(session: AsyncSession, organization_id: UUID) -> list[dict[str, Any]]:
    """Write the limit of a wallet as the engine reads it; none where there is no wallet.

    It counts what was admitted since the wallet was opened, against all that was credited.
    """
    wallet = await wallet_of(session, organization_id)
    if wallet is None:
        return []
    window = {"kind": "lifetime", "starts_at_ns": nanoseconds(wallet.opened_at)}
    cap = max(0, await credit_nanos(session, organization_id))
    return [
        derived_limit(
            organization_id,
            BALANCE_SLOT,
            kind="balance",
            resource=Resource.SPEND,
            window=window,
            cap=cap,
        )
    ]
