"""Changes to wallets by people; each flushes and puts itself on record.

All of them lock the organization and then its wallet, so that of two at once with one idempotency
key the second finds what the first made.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from uuid import UUID

from controlplane.audit.service import facts, record
from controlplane.authz import Action, Target, require
from controlplane.clock import nanoseconds
from controlplane.context import Work
from controlplane.errors import Conflict, InsufficientBalance, InvalidInput, NotFound
from controlplane.inputs import MONEY_NANOS_MAX, checked_money, checked_text
from controlplane.keys.idempotency import earlier_result, remember_result
from controlplane.money import format_money
from controlplane.scope import owned, subject_of
from controlplane.tenancy.queries import locked_organization
from controlplane.tenancy.service import policy_changed
from controlplane.versions import check_version
from controlplane.wallets import queries
from controlplane.wallets.models import (
    NOTE_LENGTH_MAX,
    REFERENCE_LENGTH_MAX,
    EntryKind,
    Wallet,
    WalletEntry,
)


@dataclass(frozen=True, slots=True)
class Credit:
    """What a person books; the amount is negative for what is taken away."""

    kind: EntryKind
    amount_nanos: int
    reference: str | None = None
    note: str | None = None
    refunded_id: UUID | None = None


async def open_wallet(
    work: Work,
    organization_id: UUID,
    *,
    idempotency_key: str,
    low_balance_threshold_nanos: int | None = None,
) -> Wallet:
    """Give an organization a prepaid balance of 0; from now on no request passes without one.

    The same call with the same idempotency key returns the wallet.

    Raises `InvalidInput`, `Conflict` when it has one, `IdempotencyMismatch`, `NotFound`,
    `NotPermitted`.
    """
    require(work.caller, Action.BILLING_WRITE, Target(organization_id), "organization")
    await locked_organization(work.session, organization_id)
    threshold = _checked_threshold(low_balance_threshold_nanos)
    request = {"operation": "wallet.open", "threshold": threshold}
    known = await earlier_result(work, organization_id, idempotency_key, request)
    row = await queries.wallet_of(work.session, organization_id)
    if row is not None:
        if known is None:
            raise Conflict("It has a wallet already.", field=("organizationId",))
        return row
    row = Wallet(
        id=work.new_id(),
        organization_id=organization_id,
        opened_at=work.now,
        low_balance_threshold_nanos=threshold,
    )
    work.session.add(row)
    await work.session.flush()
    await remember_result(work, organization_id, idempotency_key, request, row.id)
    record(work, "wallet.open", row, organization_id=organization_id, after=facts(row))
    await policy_changed(work, organization_id)
    return row


async def update_wallet(
    work: Work,
    organization_id: UUID,
    *,
    low_balance_threshold_nanos: int | None,
    expected_version: int,
) -> Wallet:
    """Set below which balance a wallet counts as low; None: never.

    Raises `InvalidInput`, `StaleVersion`, `NotFound`, `NotPermitted`.
    """
    row = await _to_change(work, organization_id)
    check_version(row.version, expected_version, subject_of(row))
    before = facts(row)
    row.low_balance_threshold_nanos = _checked_threshold(low_balance_threshold_nanos)
    if work.session.is_modified(row):
        await work.session.flush()
        record(
            work,
            "wallet.update",
            row,
            organization_id=organization_id,
            before=before,
            after=facts(row),
        )
    return row


async def top_up(
    work: Work,
    organization_id: UUID,
    *,
    amount_nanos: int,
    reference: str,
    idempotency_key: str,
    note: str | None = None,
) -> WalletEntry:
    """Credit what an organization has paid; the reference says how.

    Raises `InvalidInput`, `IdempotencyMismatch`, `NotFound`, `NotPermitted`.
    """
    await _to_change(work, organization_id)
    credit = Credit(
        EntryKind.TOP_UP,
        _checked_amount(amount_nanos),
        checked_text(reference, "reference", REFERENCE_LENGTH_MAX),
        _checked_note(note),
    )
    known = await _booked(work, organization_id, credit, idempotency_key)
    return known or await _book(work, organization_id, credit, idempotency_key)


async def adjust(
    work: Work,
    organization_id: UUID,
    *,
    amount_nanos: int,
    note: str,
    idempotency_key: str,
    reference: str | None = None,
    in_use_nanos: int = 0,
) -> WalletEntry:
    """Correct a balance up or down; the note says why.

    `in_use_nanos` is what running requests hold and what is spent but not booked yet, by the
    figures of this moment. Nothing of it may be taken away.

    Raises `InvalidInput`, `InsufficientBalance`, `IdempotencyMismatch`, `NotFound`,
    `NotPermitted`.
    """
    await _to_change(work, organization_id)
    if amount_nanos == 0 or abs(amount_nanos) > MONEY_NANOS_MAX:
        raise InvalidInput("Must be an amount other than 0.", field=("amount",))
    text = checked_text(note, "note", NOTE_LENGTH_MAX)
    label = _checked_reference(reference)
    credit = Credit(EntryKind.ADJUSTMENT, amount_nanos, label, text)
    known = await _booked(work, organization_id, credit, idempotency_key)
    if known is not None:
        return known
    if amount_nanos < 0:
        await _refuse_overdraft(work, organization_id, -amount_nanos, in_use_nanos)
    return await _book(work, organization_id, credit, idempotency_key)


async def refund(
    work: Work,
    organization_id: UUID,
    *,
    request_id: UUID,
    amount_nanos: int,
    idempotency_key: str,
    note: str | None = None,
) -> WalletEntry:
    """Give back to an organization what a request was charged, or a part of it; once for each.

    Raises `InvalidInput` for more than the charge, `Conflict` for a second refund, `NotFound` when
    the request was not paid from the wallet, `IdempotencyMismatch`, `NotPermitted`.
    """
    await _to_change(work, organization_id)
    amount = _checked_amount(amount_nanos)
    credit = Credit(EntryKind.REFUND, amount, note=_checked_note(note), refunded_id=request_id)
    known = await _booked(work, organization_id, credit, idempotency_key)
    if known is not None:
        return known
    await _check_refund(work, organization_id, request_id, amount)
    return await _book(work, organization_id, credit, idempotency_key)


async def _to_change(work: Work, organization_id: UUID) -> Wallet:
    require(work.caller, Action.BILLING_WRITE, Target(organization_id), "wallet")
    await locked_organization(work.session, organization_id)
    return await queries.locked_wallet(work.session, organization_id)


async def _booked(
    work: Work, organization_id: UUID, credit: Credit, idempotency_key: str
) -> WalletEntry | None:
    """Find what an earlier call booked.

    Raises `InvalidInput`, `IdempotencyMismatch`.
    """
    known_id = await earlier_result(work, organization_id, idempotency_key, _request(credit))
    if known_id is None:
        return None
    return await queries.entry_by_id(work.session, organization_id, known_id)


async def _book(
    work: Work, organization_id: UUID, credit: Credit, idempotency_key: str
) -> WalletEntry:
    standing = await queries.standing_of(work.session, organization_id)
    await _refuse_too_much(work, organization_id, credit)
    row = WalletEntry(
        id=work.new_id(),
        organization_id=organization_id,
        seq=standing.seq + 1,
        kind=credit.kind,
        amount_nanos=credit.amount_nanos,
        balance_after_nanos=standing.balance_nanos + credit.amount_nanos,
        refunded_id=credit.refunded_id,
        reference=credit.reference,
        note=credit.note,
        actor_id=work.caller.user_id,
        idempotency_key=idempotency_key.strip(),
        at_ns=nanoseconds(work.now),
    )
    work.session.add(row)
    await work.session.flush()
    await remember_result(work, organization_id, idempotency_key, _request(credit), row.id)
    action = f"wallet.{credit.kind.value}"
    record(work, action, row, organization_id=organization_id, after=facts(row))
    await policy_changed(work, organization_id)
    return row


async def _refuse_too_much(work: Work, organization_id: UUID, credit: Credit) -> None:
    total = await queries.credit_nanos(work.session, organization_id) + credit.amount_nanos
    if total > MONEY_NANOS_MAX:
        raise InvalidInput(
            f"All credits together are at most {format_money(MONEY_NANOS_MAX)}.",
            field=("amount",),
        )


async def _refuse_overdraft(
    work: Work, organization_id: UUID, taken_nanos: int, in_use_nanos: int
) -> None:
    credits_nanos = await queries.credit_nanos(work.session, organization_id)
    standing = await queries.standing_of(work.session, organization_id)
    spent_nanos = max(credits_nanos - standing.balance_nanos, in_use_nanos)
    if credits_nanos - taken_nanos < spent_nanos:
        left = format_money(max(0, credits_nanos - spent_nanos))
        raise InsufficientBalance(f"Only {left} can be taken away.", field=("amount",))


async def _check_refund(
    work: Work, organization_id: UUID, request_id: UUID, amount_nanos: int
) -> None:
    entries = owned(WalletEntry, organization_id)
    used = await work.session.scalar(
        entries.where(WalletEntry.id == request_id, WalletEntry.kind == EntryKind.USAGE)
    )
    if used is None:
        raise NotFound("No such request was paid from the wallet.", field=("requestId",))
    if amount_nanos > -used.amount_nanos:
        charged = format_money(-used.amount_nanos)
        raise InvalidInput(f"It was charged {charged}.", field=("amount",))
    if await work.session.scalar(entries.where(WalletEntry.refunded_id == request_id)) is not None:
        raise Conflict("It was refunded already.", field=("requestId",))


def _request(credit: Credit) -> dict[str, Any]:
    return {
        "operation": f"wallet.{credit.kind.value}",
        "amount": credit.amount_nanos,
        "reference": credit.reference,
        "note": credit.note,
        "refunded": credit.refunded_id,
    }


def _checked_amount(nanos: int) -> int:
    if not 0 < nanos <= MONEY_NANOS_MAX:
        raise InvalidInput("Must be an amount above 0.", field=("amount",))
    return nanos


def _checked_threshold(nanos: int | None) -> int | None:
    return None if nanos is None else checked_money(nanos, "lowBalanceThreshold")


def _checked_note(text: str | None) -> str | None:
    return None if text is None else checked_text(text, "note", NOTE_LENGTH_MAX)


def _checked_reference(text: str | None) -> str | None:
    return None if text is None else checked_text(text, "reference", REFERENCE_LENGTH_MAX)
