"""Limits of the installation and of providers, across all organizations; the operator's."""

from __future__ import annotations

from uuid import UUID

from sqlalchemy import func, select

from controlplane.audit.service import facts, record
from controlplane.authz import Caller
from controlplane.context import Work
from controlplane.errors import InvalidInput, LimitExceeded, NotPermitted, Subject
from controlplane.inputs import checked_money, checked_number, checked_time_zone
from controlplane.limits.labels import checked_label
from controlplane.limits.models import (
    Hold,
    InstallationLimit,
    LimitKind,
    Mode,
    Period,
    Resource,
    ScopeKind,
)
from controlplane.limits.queries import live_installation_limits
from controlplane.limits.rows import LimitValues, assign, fill
from controlplane.limits.service import CONCURRENCY_MAX, PER_MINUTE_MAX
from controlplane.limits.subjects import Scope, labelled
from controlplane.limits.windows import Calendar, Now, Rolling, Window, slot_of
from controlplane.scope import not_found
from controlplane.versions import check_version

INSTALLATION_LIMITS_MAX = 1_000
# In the place of an organization where there is none.
NOWHERE = UUID(int=0)


async def set_installation_limit(
    work: Work,
    *,
    provider: str | None,
    resource: Resource,
    cap: int,
    period: Period | None = None,
    time_zone: str = "UTC",
    mode: Mode = Mode.HARD,
    expected_version: int | None = None,
) -> InstallationLimit:
    """Create or change a limit of a provider, or of all of the installation.

    Spend counts cost, in nano units of the price sheet's currency, over a calendar period;
    requests and tokens count over any 60 seconds, and concurrency what is under way.

    Raises `InvalidInput`, `StaleVersion`, `LimitExceeded`, `NotPermitted`.
    """
    _require_operator(work)
    scope = scope_of_provider(provider)
    values = _values(scope, resource, cap, _window(resource, period, time_zone), mode)
    row = await _in_slot(work, values)
    live = row if row is not None and row.archived_at is None else None
    check_version(
        None if live is None else live.version,
        expected_version,
        None if live is None else _subject_of(live),
    )
    if row is None or live is None:
        await _refuse_too_many(work)
    return await (_insert(work, values) if row is None else _change(work, row, values))


async def archive_installation_limit(
    work: Work, limit_id: UUID, *, expected_version: int
) -> InstallationLimit:
    """Lift a limit of a provider or of the installation.

    Raises `StaleVersion`, `NotFound`, `NotPermitted`.
    """
    _require_operator(work)
    row = await work.session.scalar(
        live_installation_limits().where(InstallationLimit.id == limit_id)
    )
    if row is None:
        raise not_found("limit")
    check_version(row.version, expected_version, _subject_of(row))
    before = facts(row)
    row.archived_at = work.now
    await _put_on_record(work, row, "archive", before)
    return row


def sees_installation(caller: Caller) -> bool:
    """Tell whether a caller may see what holds for all organizations."""
    return caller.user_id is None or caller.operator


def scope_of_provider(provider: str | None) -> Scope:
    """Name a provider as a scope; None is all of the installation.

    Raises `InvalidInput`.
    """
    if provider is None:
        return labelled(ScopeKind.INSTALLATION, "")
    return labelled(ScopeKind.PROVIDER, checked_label(provider, "provider"))


def _require_operator(work: Work) -> None:
    if not sees_installation(work.caller):
        raise NotPermitted("Only the operator limits providers and the installation.")


def _window(resource: Resource, period: Period | None, time_zone: str) -> Window:
    if resource is Resource.SPEND:
        if period is None:
            raise InvalidInput("Spending is limited by a period.", field=("period",))
        return Calendar(period, checked_time_zone(time_zone))
    if period is not None:
        raise InvalidInput("Only spending is limited by a period.", field=("period",))
    return Now() if resource is Resource.CONCURRENCY else Rolling(60)


def _values(scope: Scope, resource: Resource, cap: int, window: Window, mode: Mode) -> LimitValues:
    if mode is Mode.METERED:
        raise InvalidInput("It is hard, soft or shadow.", field=("enforcement",))
    if resource is Resource.SPEND:
        checked_money(cap, "amount")
        kind, hold = LimitKind.BUDGET, Hold.EXPECTED
        return LimitValues(kind, scope, resource, window, cap, mode, hold)
    if resource is Resource.CONCURRENCY:
        checked_number(cap, "count", 0, CONCURRENCY_MAX)
        return LimitValues(LimitKind.CONCURRENCY, scope, resource, window, cap, mode)
    checked_number(cap, "count", 0, PER_MINUTE_MAX)
    # What a request has used is known when it has ended: tokens stop the next one.
    is_metered = resource is Resource.TOKENS and mode is Mode.HARD
    new_mode = Mode.METERED if is_metered else mode
    return LimitValues(LimitKind.RATE, scope, resource, window, cap, new_mode)


async def _in_slot(work: Work, values: LimitValues) -> InstallationLimit | None:
    return await work.session.scalar(
        select(InstallationLimit).where(
            InstallationLimit.scope_kind == values.scope.kind,
            InstallationLimit.scope_id == values.scope.id,
            InstallationLimit.kind == values.kind,
            InstallationLimit.slot == slot_of(values.where, values.resource, values.window),
        )
    )


async def _insert(work: Work, values: LimitValues) -> InstallationLimit:
    row = InstallationLimit(id=work.new_id())
    fill(row, values, work)
    work.session.add(row)
    await work.session.flush()
    record(work, "installation_limit.create", row, organization_id=None, after=facts(row))
    work.announce_installation()
    return row


async def _change(work: Work, row: InstallationLimit, values: LimitValues) -> InstallationLimit:
    before = facts(row)
    assign(row, values, work)
    if work.session.is_modified(row):
        await _put_on_record(work, row, "change", before)
    return row


async def _put_on_record(
    work: Work, row: InstallationLimit, verb: str, before: dict[str, object]
) -> None:
    await work.session.flush()
    action = f"installation_limit.{verb}"
    record(work, action, row, organization_id=None, before=before, after=facts(row))
    work.announce_installation()


async def _refuse_too_many(work: Work) -> None:
    count = live_installation_limits().with_only_columns(func.count())
    if (await work.session.scalar(count) or 0) >= INSTALLATION_LIMITS_MAX:
        raise LimitExceeded(
            f"An installation has at most {INSTALLATION_LIMITS_MAX} limits.",
            maximum=INSTALLATION_LIMITS_MAX,
        )


def _subject_of(row: InstallationLimit) -> Subject:
    return Subject(row.__tablename__, NOWHERE, row.id)
