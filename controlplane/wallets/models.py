"""The tables of prepaid balances."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from uuid import UUID

from sqlalchemy import BigInteger, ForeignKey, Index, String, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column

from controlplane.columns import choice
from controlplane.db import Versioned
from controlplane.keys.models import IDEMPOTENCY_KEY_LENGTH_MAX
from controlplane.scope import TenantRow

REFERENCE_LENGTH_MAX = 200
NOTE_LENGTH_MAX = 1_000

# What people booked: few rows, beside one for each request. It is text, in the index and where it
# is asked for, since neither database finds an index by a condition with a parameter.
BY_PEOPLE = text("wallet_entries.kind <> 'usage'")
_INDEXED = text("kind <> 'usage'")


class EntryKind(StrEnum):
    """Why a balance changed."""

    TOP_UP = "top_up"
    USAGE = "usage"
    ADJUSTMENT = "adjustment"
    REFUND = "refund"


class Wallet(Versioned, TenantRow):
    """The prepaid balance of an organization, which has at most one, and keeps it.

    Requests admitted from `opened_at` on are paid from it.
    """

    __tablename__ = "wallets"
    __table_args__ = (UniqueConstraint("organization_id"),)

    opened_at: Mapped[datetime]
    low_balance_threshold_nanos: Mapped[int | None] = mapped_column(BigInteger)


class WalletEntry(TenantRow):
    """One change of a balance; rows are only ever added, and the balance is their sum.

    `seq` counts the entries of an organization from 1, in the order in which they were booked, and
    `balance_after_nanos` is the sum of all up to this one: a page of entries and the balance cost
    no more when there are a million. A usage entry has the id of the ledger entry it pays.
    """

    __tablename__ = "wallet_entries"
    __table_args__ = (
        UniqueConstraint("organization_id", "seq"),
        # One refund for a request; null, which all others have, is never equal to null.
        UniqueConstraint("organization_id", "refunded_id"),
        Index(
            "ix_wallet_entries_by_people",
            "organization_id",
            "seq",
            sqlite_where=_INDEXED,
            postgresql_where=_INDEXED,
        ),
    )

    seq: Mapped[int] = mapped_column(BigInteger)
    kind: Mapped[EntryKind] = mapped_column(choice(EntryKind))
    amount_nanos: Mapped[int] = mapped_column(BigInteger)
    balance_after_nanos: Mapped[int] = mapped_column(BigInteger)
    refunded_id: Mapped[UUID | None]
    reference: Mapped[str | None] = mapped_column(String(REFERENCE_LENGTH_MAX))
    note: Mapped[str | None] = mapped_column(String(NOTE_LENGTH_MAX))
    actor_id: Mapped[UUID | None] = mapped_column(ForeignKey("users.id"))
    idempotency_key: Mapped[str | None] = mapped_column(String(IDEMPOTENCY_KEY_LENGTH_MAX))
    at_ns: Mapped[int] = mapped_column(BigInteger)
