"""Wallets in the API."""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode
from datetime import datetime
from typing import Annotated
from uuid import UUID

import strawberry

from controlplane.api.connections import (
    FIRST_DEFAULT,
    After,
    Connection,
    First,
    checked_first,
    connect,
)
from controlplane.api.fields import enumeration, resolved
from controlplane.api.nodes import Node, NodeKind, global_id
from controlplane.api.request import Info
from controlplane.api.scalars import Money
from controlplane.authz import Action, Target, may
from controlplane.clock import instant
from controlplane.errors import InvalidInput
from controlplane.limits.models import ScopeKind
from controlplane.limits.state import LimitState
from controlplane.limits.subjects import Scope
from controlplane.tenancy.graphql import User, user_of
from controlplane.wallets import models
from controlplane.wallets.models import EntryKind
from controlplane.wallets.queries import Standing, balance_limit_id, page_of_entries

# The ordering is part of the cursor: one of another list must not pass for one of this.
_ORDER = "seq-desc:"
_CURSOR_LENGTH_MAX = 40

enumeration(
    EntryKind,
    "WalletEntryKind",
    "Why a balance changed.",
    {
        EntryKind.TOP_UP: "It was paid in.",
        EntryKind.USAGE: "A request was charged.",
        EntryKind.ADJUSTMENT: "The operator corrected it, up or down.",
        EntryKind.REFUND: "The operator gave back what a request was charged, or a part of it.",
    },
)

IncludeUsage = Annotated[
    bool,
    strawberry.argument(
        description="Whether to show what requests were charged, beside what people booked."
    ),
]


@strawberry.type(description="One change of a balance; entries are only ever added.")
class WalletEntry(Node):
    """One change of a balance."""

    kind: EntryKind = strawberry.field(description="Why the balance changed.")
    amount: Money = strawberry.field(description="By how much; below zero when it was taken.")
    balance_after: Money = strawberry.field(description="The sum of all entries up to this one.")
    at: datetime = strawberry.field(description="When it happened.")
    reference: str | None = strawberry.field(description="What it refers to: a payment, a case.")
    note: str | None = strawberry.field(description="Why, in words.")
    request_id: strawberry.ID | None = strawberry.field(
        description="Global id of the request that was charged, or whose charge was given back."
    )
    row: strawberry.Private[models.WalletEntry]

    @resolved("Who booked it; null for requests, and for all callers but the operator.")
    async def actor(self, info: Info) -> User | None:
        """Load the person."""
        if self.row.actor_id is None or not info.context.caller.operator:
            return None
        row = await info.context.loaders.users.load(self.row.actor_id)
        return None if row is None else user_of(row)


@strawberry.type(description="The prepaid balance of an organization.")
class Wallet(Node):
    """The prepaid balance of an organization."""

    opened_at: datetime = strawberry.field(
        description="Since when requests are paid from it; those admitted before are not."
    )
    balance: Money = strawberry.field(description="The sum of its entries.")
    low_balance_threshold: Money | None = strawberry.field(
        description="Below this balance it counts as low; null: never."
    )
    version: int = strawberry.field(description="Counts changes; see `expectedVersion`.")
    row: strawberry.Private[models.Wallet]

    @resolved("What requests under way hold of it.")
    def held(self, info: Info) -> Money:
        """Read what is held at this moment."""
        state = balance_state(info, self.row.organization_id)
        return Money(0 if state is None else state.held)

    @resolved("Balance less what is held; below zero after an overrun.")
    def available(self, info: Info) -> Money:
        """Subtract what is held."""
        return Money(self.balance - self.held(info))

    @resolved("Its entries, the last booked first.")
    async def entries(
        self,
        info: Info,
        first: First = FIRST_DEFAULT,
        after: After = None,
        include_usage: IncludeUsage = True,  # noqa: FBT002 - an argument of the API
    ) -> Connection[WalletEntry]:
        """List entries."""
        before_seq = None if after is None else _read_cursor(after)
        query = page_of_entries(
            self.row.organization_id, before_seq, include_usage=include_usage
        ).limit(checked_first(first) + 1)
        async with info.context.backend.database.read() as session:
            rows = list(await session.scalars(query))
        items = [(_cursor(row.seq), wallet_entry_of(row)) for row in rows[:first]]
        return connect(items, has_next=len(rows) > first, has_previous=after is not None)


def wallet_of(row: models.Wallet, standing: Standing) -> Wallet:
    """Show a wallet."""
    threshold = row.low_balance_threshold_nanos
    return Wallet(
        id=global_id(NodeKind.WALLET, row.organization_id, row.id),
        opened_at=row.opened_at,
        balance=Money(standing.balance_nanos),
        low_balance_threshold=None if threshold is None else Money(threshold),
        version=row.version,
        row=row,
    )


def wallet_entry_of(row: models.WalletEntry) -> WalletEntry:
    """Show an entry."""
    request_id = row.id if row.kind is EntryKind.USAGE else row.refunded_id
    place = row.organization_id
    return WalletEntry(
        id=global_id(NodeKind.WALLET_ENTRY, place, row.id),
        kind=row.kind,
        amount=Money(row.amount_nanos),
        balance_after=Money(row.balance_after_nanos),
        at=instant(row.at_ns),
        reference=row.reference,
        note=row.note,
        request_id=None if request_id is None else global_id(NodeKind.REQUEST, place, request_id),
        row=row,
    )


async def load_wallet(info: Info, organization_id: UUID) -> Wallet | None:
    """Load the wallet of an organization; null when there is none the caller may see."""
    if not may(info.context.caller, Action.BILLING_READ, Target(organization_id)):
        return None
    found = await info.context.loaders.wallets.load(organization_id)
    return None if found is None else wallet_of(*found)


def balance_state(info: Info, organization_id: UUID) -> LimitState | None:
    """Read what the enforcing process counts against the balance at this moment."""
    scope = Scope(ScopeKind.ORGANIZATION, organization_id)
    return info.context.limit_state(organization_id, scope, balance_limit_id(organization_id))


def _cursor(seq: int) -> str:
    return urlsafe_b64encode(f"{_ORDER}{seq}".encode()).decode()


def _read_cursor(text: str) -> int:
    try:
        raw = urlsafe_b64decode(text[:_CURSOR_LENGTH_MAX]).decode("ascii")
    except ValueError:
        raw = ""
    digits = raw.removeprefix(_ORDER)
    if not raw.startswith(_ORDER) or not digits.isdigit():
        raise InvalidInput("This is no cursor of this list and its order.", field=("after",))
    return int(digits)
