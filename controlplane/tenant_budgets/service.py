"""Changes to tenant budgets: all of one is set in one transaction, or nothing is."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any
from uuid import UUID

from controlplane.audit.service import facts, record
from controlplane.authz import Action, Target, may, require
from controlplane.context import Work
from controlplane.errors import InvalidInput, NotPermitted
from controlplane.inputs import checked_money, checked_number, checked_text
from controlplane.keys.idempotency import first_result, remember_result
from controlplane.scope import get_owned, not_found, subject_of
from controlplane.tenancy.queries import locked_organization
from controlplane.tenancy.service import policy_changed
from controlplane.tenant_budgets.models import (
    MODEL_NAME_LENGTH_MAX,
    POLICY_LABEL_LENGTH_MAX,
    OverLimitAction,
    TenantBudget,
)
from controlplane.tenant_budgets.queries import any_budget_of
from controlplane.versions import check_version
from controlplane.wallets.queries import standing_of, wallet_of
from controlplane.wallets.service import adjust, open_wallet

NAMES_MAX = 100
NAME_LENGTH_MAX = 200
QUEUE_TIMEOUT_S_MAX = 300

_DOWNGRADES = frozenset({OverLimitAction.DOWNGRADE, OverLimitAction.DOWNGRADE_THEN_FAIL_CLOSED})


@dataclass(frozen=True, slots=True)
class Guardrails:
    """What a tenant budget shall be; amounts are nano units, tiers None allows all.

    `prepaid_balance_nanos` is the balance there shall be now; None leaves the wallet as it is.
    """

    monthly_budget_nanos: int
    policy_label: str
    hard_stop_nanos: int | None = None
    daily_soft_limit_nanos: int | None = None
    prepaid_balance_nanos: int | None = None
    allowed_model_tiers: tuple[str, ...] | None = None
    blocked_features: tuple[str, ...] = ()
    over_limit_action: OverLimitAction = OverLimitAction.REJECT
    downgrade_model: str | None = None
    queue_timeout_s: int | None = None


async def set_tenant_budget(
    work: Work,
    organization_id: UUID,
    wanted: Guardrails,
    *,
    expected_version: int | None = None,
    idempotency_key: str | None = None,
    in_use_nanos: int = 0,
) -> TenantBudget:
    """Set the tenant budget of an organization; for its admins and the operator.

    Only the operator sets the balance, which needs an idempotency key, and changes what the
    operator has set. `in_use_nanos` is as for `wallets.service.adjust`.

    Raises `InvalidInput`, `InsufficientBalance`, `StaleVersion`, `IdempotencyMismatch`,
    `NotFound`, `NotPermitted`.
    """
    _require(work, organization_id)
    await locked_organization(work.session, organization_id)
    values = _checked(wanted)
    request = {"operation": "tenant_budget.set", **asdict(wanted), "version": expected_version}
    known_id = await first_result(work, organization_id, idempotency_key, request)
    if known_id is not None:
        return await get_owned(
            work.session, TenantBudget, organization_id, known_id, "tenant budget"
        )
    row = await _to_set(work, organization_id, expected_version)
    await _put(work, organization_id, row, values)
    if wanted.prepaid_balance_nanos is not None:
        if idempotency_key is None:
            raise InvalidInput("To set a balance takes one.", field=("idempotencyKey",))
        await _set_balance(work, organization_id, wanted, idempotency_key, in_use_nanos)
    await remember_result(work, organization_id, idempotency_key, request, row.id)
    await policy_changed(work, organization_id)
    return row


async def remove_tenant_budget(
    work: Work, organization_id: UUID, *, expected_version: int
) -> TenantBudget:
    """Lift the tenant budget of an organization; its wallet stays.

    Raises `StaleVersion`, `NotFound`, `NotPermitted`.
    """
    _require(work, organization_id)
    await locked_organization(work.session, organization_id)
    row = await any_budget_of(work.session, organization_id)
    if row is None or row.archived_at is not None:
        raise not_found("tenant budget")
    _refuse_operators(work, row)
    check_version(row.version, expected_version, subject_of(row))
    before = facts(row)
    row.archived_at = work.now
    await work.session.flush()
    _record(work, "tenant_budget.remove", row, before)
    await policy_changed(work, organization_id)
    return row


def _require(work: Work, organization_id: UUID) -> None:
    target = Target(organization_id)
    if not may(work.caller, Action.BILLING_WRITE, target):
        require(work.caller, Action.LIMITS_WRITE, target, "organization")


def _refuse_operators(work: Work, row: TenantBudget) -> None:
    target = Target(row.organization_id)
    if row.is_operators and not may(work.caller, Action.BILLING_WRITE, target):
        raise NotPermitted("What the operator has set is changed by the operator alone.")


async def _to_set(work: Work, organization_id: UUID, expected_version: int | None) -> TenantBudget:
    row = await any_budget_of(work.session, organization_id)
    if row is None:
        check_version(None, expected_version, None)
        return TenantBudget(id=work.new_id(), organization_id=organization_id)
    if row.archived_at is not None:
        # It is shown to nobody, and so its version is not known.
        check_version(None, expected_version, None)
        return row
    _refuse_operators(work, row)
    check_version(row.version, expected_version, subject_of(row))
    return row


async def _put(
    work: Work, organization_id: UUID, row: TenantBudget, values: dict[str, Any]
) -> None:
    is_new = row.version is None
    before = None if is_new else facts(row)
    for name, value in values.items():
        setattr(row, name, value)
    row.is_operators = may(work.caller, Action.BILLING_WRITE, Target(organization_id))
    row.set_by, row.set_at, row.archived_at = work.caller.user_id, work.now, None
    work.session.add(row)
    await work.session.flush()
    _record(work, "tenant_budget.set", row, before)


async def _set_balance(
    work: Work,
    organization_id: UUID,
    wanted: Guardrails,
    idempotency_key: str,
    in_use_nanos: int,
) -> None:
    require(work.caller, Action.BILLING_WRITE, Target(organization_id), "wallet")
    # What the budget remembers under the key itself is another call.
    key = f"tenant budget {idempotency_key.strip()}"
    if await wallet_of(work.session, organization_id) is None:
        await open_wallet(work, organization_id, idempotency_key=f"{key} opens")
    standing = await standing_of(work.session, organization_id)
    change_nanos = (wanted.prepaid_balance_nanos or 0) - standing.balance_nanos
    if change_nanos:
        await adjust(
            work,
            organization_id,
            amount_nanos=change_nanos,
            note=f"Tenant budget {wanted.policy_label.strip()}",
            idempotency_key=key,
            in_use_nanos=in_use_nanos,
        )


def _record(work: Work, action: str, row: TenantBudget, before: dict[str, Any] | None) -> None:
    place = row.organization_id
    record(work, action, row, organization_id=place, before=before, after=facts(row))


def _checked(wanted: Guardrails) -> dict[str, Any]:
    """Check all values; gives those of the columns."""
    monthly = checked_money(wanted.monthly_budget_nanos, "monthlyBudget")
    if wanted.prepaid_balance_nanos is not None:
        checked_money(wanted.prepaid_balance_nanos, "prepaidBalance")
    tiers = wanted.allowed_model_tiers
    return {
        "monthly_budget_nanos": monthly,
        "hard_stop_nanos": _checked_stop(wanted, monthly),
        "daily_soft_limit_nanos": _optional_money(wanted.daily_soft_limit_nanos, "dailySoftLimit"),
        "allowed_model_tiers": None if tiers is None else _names(tiers, "allowedModelTiers"),
        "blocked_features": _names(wanted.blocked_features, "blockedFeatures"),
        "over_limit_action": wanted.over_limit_action,
        "downgrade_model": _checked_model(wanted),
        "queue_timeout_s": _checked_timeout(wanted),
        "policy_label": checked_text(wanted.policy_label, "policyVersion", POLICY_LABEL_LENGTH_MAX),
    }


def _checked_stop(wanted: Guardrails, monthly_nanos: int) -> int | None:
    stop = _optional_money(wanted.hard_stop_nanos, "hardStop")
    if stop is None and wanted.over_limit_action is OverLimitAction.DOWNGRADE_THEN_FAIL_CLOSED:
        raise InvalidInput("To fail closed takes a hard stop.", field=("hardStop",))
    if stop is not None and wanted.over_limit_action is OverLimitAction.DOWNGRADE:
        raise InvalidInput(
            "With a hard stop it is DOWNGRADE_THEN_FAIL_CLOSED.", field=("overLimitAction",)
        )
    if stop is not None and stop < monthly_nanos:
        raise InvalidInput("Must not be below the monthly budget.", field=("hardStop",))
    return stop


def _checked_model(wanted: Guardrails) -> str | None:
    model = wanted.downgrade_model
    if wanted.over_limit_action not in _DOWNGRADES:
        if model is not None:
            raise InvalidInput("Only a downgrade takes a model.", field=("downgradeModel",))
        return None
    if model is None:
        raise InvalidInput("A downgrade takes a model.", field=("downgradeModel",))
    return _name(model, "downgradeModel", MODEL_NAME_LENGTH_MAX)


def _checked_timeout(wanted: Guardrails) -> int | None:
    timeout_s = wanted.queue_timeout_s
    if wanted.over_limit_action is not OverLimitAction.QUEUE:
        if timeout_s is not None:
            raise InvalidInput("Only a queue takes a timeout.", field=("queueTimeoutSeconds",))
        return None
    if timeout_s is None:
        raise InvalidInput("A queue takes a timeout.", field=("queueTimeoutSeconds",))
    return checked_number(timeout_s, "queueTimeoutSeconds", 1, QUEUE_TIMEOUT_S_MAX)


def _optional_money(nanos: int | None, field: str) -> int | None:
    return None if nanos is None else checked_money(nanos, field)


def _names(names: tuple[str, ...], field: str) -> list[str]:
    if len(names) > NAMES_MAX:
        raise InvalidInput(f"At most {NAMES_MAX} names.", field=(field,))
    return sorted({_name(each, field, NAME_LENGTH_MAX) for each in names})


def _name(text: str, field: str, length_max: int) -> str:
    """Accept a name that the engine reads, which counts bytes."""
    name = checked_text(text, field, length_max)
    if len(name.encode()) > length_max:
        raise InvalidInput(f"A name has at most {length_max} bytes.", field=(field,))
    return name
