"""Changes to wallets in the API."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from uuid import UUID

import strawberry

from controlplane.api.faults import UserError, attempt
from controlplane.api.fields import mutation
from controlplane.api.nodes import NodeKind, expect
from controlplane.api.request import Info
from controlplane.api.scalars import Money
from controlplane.context import Work
from controlplane.wallets import models, service
from controlplane.wallets.graphql import (
    Wallet,
    WalletEntry,
    balance_state,
    load_wallet,
    wallet_entry_of,
)

_RETRY = "A retry with the same value books nothing again and returns the first result."


@strawberry.input(description="A prepaid balance to begin.")
class WalletOpenInput:
    """A prepaid balance to begin."""

    organization_id: strawberry.ID = strawberry.field(
        description="Whose it shall be. Its requests are refused until it is topped up."
    )
    low_balance_threshold: Money | None = strawberry.field(
        default=None, description="Below this balance it counts as low; null: never."
    )
    idempotency_key: str = strawberry.field(description=_RETRY)


@strawberry.input(description="What to change of a wallet.")
class WalletUpdateInput:
    """What to change of a wallet."""

    organization_id: strawberry.ID = strawberry.field(description="Whose wallet.")
    low_balance_threshold: Money | None = strawberry.field(
        description="Below this balance it counts as low; null: never."
    )
    expected_version: int = strawberry.field(description="The version you have seen.")


@strawberry.input(description="Money that was paid in.")
class WalletTopUpInput:
    """Money that was paid in."""

    organization_id: strawberry.ID = strawberry.field(description="Whose wallet.")
    amount: Money = strawberry.field(description="How much; above zero.")
    reference: str = strawberry.field(
        description="The payment, as in your books; up to 200 characters."
    )
    note: str | None = strawberry.field(default=None, description="Up to 1000 characters.")
    idempotency_key: str = strawberry.field(description=_RETRY)


@strawberry.input(description="A correction of a balance.")
class WalletAdjustInput:
    """A correction of a balance."""

    organization_id: strawberry.ID = strawberry.field(description="Whose wallet.")
    amount: Money = strawberry.field(
        description="How much more, or less when below zero; what is spent or held by requests "
        "under way cannot be taken away."
    )
    note: str = strawberry.field(description="Why; up to 1000 characters.")
    reference: str | None = strawberry.field(
        default=None, description="What it refers to; up to 200 characters."
    )
    idempotency_key: str = strawberry.field(description=_RETRY)


@strawberry.input(description="A charge to give back.")
class WalletRefundInput:
    """A charge to give back."""

    request_id: strawberry.ID = strawberry.field(
        description="Global id of the request that was charged; it is refunded once."
    )
    amount: Money = strawberry.field(description="How much; above zero, at most the charge.")
    note: str | None = strawberry.field(default=None, description="Up to 1000 characters.")
    idempotency_key: str = strawberry.field(description=_RETRY)


@strawberry.type(description="The wallet, or why nothing was changed.")
class WalletPayload:
    """The wallet, or why nothing was changed."""

    wallet: Wallet | None = strawberry.field(description="The wallet; null when there are errors.")
    errors: list[UserError] = strawberry.field(description="What you can mend.")


@strawberry.type(description="What was booked, or why nothing was changed.")
class WalletEntryPayload:
    """What was booked, or why nothing was changed."""

    wallet: Wallet | None = strawberry.field(
        description="The wallet as it is now; null when there are errors."
    )
    wallet_entry: WalletEntry | None = strawberry.field(
        description="The entry; null when there are errors."
    )
    errors: list[UserError] = strawberry.field(description="What you can mend.")


@strawberry.type
class WalletMutation:
    """Changes to wallets."""

    @mutation("Give an organization a prepaid balance, of zero. For the operator.")
    async def wallet_open(self, info: Info, input: WalletOpenInput) -> WalletPayload:  # noqa: A002
        """Give an organization a wallet."""

        async def change(work: Work) -> models.Wallet:
            return await service.open_wallet(
                work,
                _place(input.organization_id),
                low_balance_threshold_nanos=input.low_balance_threshold,
                idempotency_key=input.idempotency_key,
            )

        return await _wallet_payload(info, *await attempt(info, change))

    @mutation("Set below which balance a wallet counts as low. For the operator.")
    async def wallet_update(self, info: Info, input: WalletUpdateInput) -> WalletPayload:  # noqa: A002
        """Change a wallet."""

        async def change(work: Work) -> models.Wallet:
            return await service.update_wallet(
                work,
                _place(input.organization_id),
                low_balance_threshold_nanos=input.low_balance_threshold,
                expected_version=input.expected_version,
            )

        return await _wallet_payload(info, *await attempt(info, change))

    @mutation("Credit what was paid in, from the next request on. For the operator.")
    async def wallet_top_up(self, info: Info, input: WalletTopUpInput) -> WalletEntryPayload:  # noqa: A002
        """Credit what was paid in."""

        async def change(work: Work) -> models.WalletEntry:
            return await service.top_up(
                work,
                _place(input.organization_id),
                amount_nanos=input.amount,
                reference=input.reference,
                note=input.note,
                idempotency_key=input.idempotency_key,
            )

        return await _book(info, change)

    @mutation("Correct a balance up or down. For the operator.")
    async def wallet_adjust(self, info: Info, input: WalletAdjustInput) -> WalletEntryPayload:  # noqa: A002
        """Correct a balance."""

        async def change(work: Work) -> models.WalletEntry:
            place = _place(input.organization_id)
            state = balance_state(info, place)
            return await service.adjust(
                work,
                place,
                amount_nanos=input.amount,
                note=input.note,
                reference=input.reference,
                idempotency_key=input.idempotency_key,
                in_use_nanos=0 if state is None else state.settled + state.held,
            )

        return await _book(info, change)

    @mutation("Give back what a request was charged, or a part of it. For the operator.")
    async def wallet_refund(self, info: Info, input: WalletRefundInput) -> WalletEntryPayload:  # noqa: A002
        """Give back a charge."""

        async def change(work: Work) -> models.WalletEntry:
            request = expect(input.request_id, NodeKind.REQUEST, "request")
            return await service.refund(
                work,
                request.organization_id,
                request_id=request.id,
                amount_nanos=input.amount,
                note=input.note,
                idempotency_key=input.idempotency_key,
            )

        return await _book(info, change)


def _place(text: str) -> UUID:
    return expect(text, NodeKind.ORGANIZATION, "organization").id


async def _wallet_payload(
    info: Info, row: models.Wallet | None, errors: list[UserError]
) -> WalletPayload:
    shown = None if row is None else await load_wallet(info, row.organization_id)
    return WalletPayload(wallet=shown, errors=errors)


async def _book(
    info: Info, change: Callable[[Work], Awaitable[models.WalletEntry]]
) -> WalletEntryPayload:
    row, errors = await attempt(info, change)
    if row is None:
        return WalletEntryPayload(wallet=None, wallet_entry=None, errors=errors)
    wallet = await load_wallet(info, row.organization_id)
    return WalletEntryPayload(wallet=wallet, wallet_entry=wallet_entry_of(row), errors=errors)
