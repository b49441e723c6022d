"""Changes to plans and to who is on them; each flushes and puts itself on record.

They are the operator's. A change of a plan is published for every organization on it before it is
answered, and so holds for the next request.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypedDict
from uuid import UUID

from controlplane.audit.service import facts, record
from controlplane.authz import Action, Target, require, require_operator
from controlplane.columns import Json
from controlplane.context import Work
from controlplane.errors import Conflict, InvalidInput, LimitExceeded, Subject
from controlplane.inputs import checked_currency, checked_money, checked_number, checked_text
from controlplane.plans import queries
from controlplane.plans.models import PLAN_NAME_LENGTH_MAX, PLANS_MAX, Plan
from controlplane.tenancy.models import Organization
from controlplane.tenancy.queries import locked_organization
from controlplane.tenancy.service import policies_changed, policy_changed
from controlplane.versions import check_version

# Eleven times the cost; the engine multiplies 64 bits of money by it in 128.
MARKUP_PPM_MAX = 10_000_000
REQUESTS_MAX = 10**12

_NOWHERE = UUID(int=0)


class PlanChanges(TypedDict, total=False):
    """What shall be of a plan; what is left out stays, and is nothing in a new one."""

    name: str
    markup_ppm: int
    fees: Mapping[str, int]
    requests_per_month: int | None
    requests_per_day: int | None
    requests_per_minute: int | None


async def create_plan(work: Work, wanted: PlanChanges) -> Plan:
    """Create a plan; its name is its own, also among archived ones.

    Raises `InvalidInput`, `Conflict` when the name is taken, `LimitExceeded`, `NotPermitted`.
    """
    require_operator(work.caller)
    row = Plan(id=work.new_id(), markup_ppm=0, fees={}, created_at=work.now)
    values = _checked(wanted)
    if "name" not in values:
        raise InvalidInput("A plan needs a name.", field=("name",))
    await _refuse_taken(work, values["name"])
    if await queries.count_plans(work.session) >= PLANS_MAX:
        raise LimitExceeded(f"There are at most {PLANS_MAX} plans.", maximum=PLANS_MAX)
    _assign(row, values)
    work.session.add(row)
    await work.session.flush()
    record(work, "plan.create", row, organization_id=None, after=facts(row))
    return row


async def update_plan(
    work: Work, plan_id: UUID, changes: PlanChanges, *, expected_version: int
) -> Plan:
    """Change a plan, archived or not, for every organization on it.

    Raises `InvalidInput`, `Conflict` when the name is taken or an organization on it would have
    no fee in its currency, `StaleVersion`, `NotFound`, `NotPermitted`.
    """
    require_operator(work.caller)
    row = await queries.plan_by_id(work.session, plan_id)
    check_version(row.version, expected_version, _subject(row))
    values = _checked(changes)
    if values.get("name", row.name) != row.name:
        await _refuse_taken(work, values["name"])
    before = facts(row)
    _assign(row, values)
    if not work.session.is_modified(row):
        return row
    for currency in sorted(await queries.currencies_on(work.session, plan_id)):
        check_fee(row, currency, "fees")
    await _put(work, row, "plan.update", before)
    await policies_changed(work, await queries.organizations_on(work.session, plan_id))
    return row


async def archive_plan(
    work: Work, plan_id: UUID, *, expected_version: int, reason: str | None = None
) -> Plan:
    """Archive a plan: nothing new gets it, who is on it stays; archived again nothing changes.

    Raises `InvalidInput`, `StaleVersion`, `NotFound`, `NotPermitted`.
    """
    require_operator(work.caller)
    row = await queries.plan_by_id(work.session, plan_id)
    if reason is not None:
        reason = checked_text(reason, "reason", PLAN_NAME_LENGTH_MAX)
    if row.archived_at is not None:
        return row
    check_version(row.version, expected_version, _subject(row))
    before = facts(row)
    row.archived_at = work.now
    await _put(work, row, "plan.archive", before, reason)
    return row


async def set_plan(
    work: Work, organization_id: UUID, plan_id: UUID | None, *, expected_version: int
) -> Organization:
    """Put an organization on a plan, or on none.

    Raises `Conflict` for an archived plan and for one without a fee in the organization's
    currency, `StaleVersion`, `NotFound`, `NotPermitted`.
    """
    require(work.caller, Action.BILLING_WRITE, Target(organization_id), "organization")
    row = await locked_organization(work.session, organization_id)
    check_version(row.version, expected_version, Subject("organizations", row.id, row.id))
    if plan_id == row.plan_id:
        return row
    if plan_id is not None:
        plan = await queries.plan_by_id(work.session, plan_id)
        if plan.archived_at is not None:
            raise Conflict("An archived plan is given to nothing new.", field=("planId",))
        check_fee(plan, row.currency, "planId")
    before = facts(row)
    row.plan_id = plan_id
    await work.session.flush()
    record(
        work,
        "organization.set_plan",
        row,
        organization_id=organization_id,
        before=before,
        after=facts(row),
    )
    await policy_changed(work, organization_id)
    return row


def check_fee(plan: Plan, currency: str, field: str) -> None:
    """Check that a plan says what its fee is in a currency, if it has fees at all.

    Raises `Conflict`: without it an organization would silently pay no fee.
    """
    if plan.fees and currency not in plan.fees:
        raise Conflict(f"The plan {plan.name} has no fee in {currency}.", field=(field,))


def fee_nanos(plan: Plan | None, currency: str) -> int:
    """Tell what a plan adds to each request of an organization with this currency."""
    return 0 if plan is None else plan.fees.get(currency, 0)


def _checked(wanted: PlanChanges) -> PlanChanges:
    found = PlanChanges()
    if "name" in wanted:
        found["name"] = checked_text(wanted["name"], "name", PLAN_NAME_LENGTH_MAX)
    if "markup_ppm" in wanted:
        found["markup_ppm"] = checked_number(wanted["markup_ppm"], "markupPpm", 0, MARKUP_PPM_MAX)
    if "fees" in wanted:
        found["fees"] = {
            checked_currency(currency, "fees"): checked_money(nanos, "fees")
            for currency, nanos in wanted["fees"].items()
        }
    if "requests_per_month" in wanted:
        month = wanted["requests_per_month"]
        found["requests_per_month"] = _checked_requests(month, "requestsPerMonth")
    if "requests_per_day" in wanted:
        found["requests_per_day"] = _checked_requests(wanted["requests_per_day"], "requestsPerDay")
    if "requests_per_minute" in wanted:
        minute = wanted["requests_per_minute"]
        found["requests_per_minute"] = _checked_requests(minute, "requestsPerMinute")
    return found


def _checked_requests(value: int | None, field: str) -> int | None:
    return None if value is None else checked_number(value, field, 0, REQUESTS_MAX)


def _assign(row: Plan, values: PlanChanges) -> None:
    for name, value in values.items():
        setattr(row, name, value)


async def _put(work: Work, row: Plan, action: str, before: Json, reason: str | None = None) -> None:
    await work.session.flush()
    record(work, action, row, organization_id=None, before=before, after=facts(row), reason=reason)


async def _refuse_taken(work: Work, name: str) -> None:
    if await queries.plan_by_name(work.session, name) is not None:
        raise Conflict(f"The name {name} is taken.", field=("name",))


def _subject(row: Plan) -> Subject:
    return Subject("plans", _NOWHERE, row.id)
