"""Limits in the form in which the engine reads them (canonical JSON in the snapshots)."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from controlplane.canonical import canonical_hash, canonical_json
from controlplane.clock import nanoseconds
from controlplane.columns import Json
from controlplane.limits.models import Hold, InstallationLimit, Limit, LimitKind, Mode, Resource
from controlplane.limits.subjects import Scope, scope_of_row
from controlplane.limits.where import Where, where_form
from controlplane.limits.windows import window_of

# What an organization is charged without a plan and in the currency of the price sheet.
NEUTRAL_CHARGING: Json = {
    "rates": [{"from_ns": 0, "picos": 10**12}],
    "markup_ppm": 0,
    "fee_nanos": 0,
}


def limit_form(
    limit_id: UUID,
    kind: LimitKind,
    scope: Scope,
    resource: Resource,
    window: Json,
    cap: int,
    mode: Mode,
    *,
    hold: Hold = Hold.BOUND,
    where: Where | None = None,
    steps: Sequence[Json] = (),
    cooldown_s: int | None = None,
    from_ns: int | None = None,
    until_ns: int | None = None,
) -> Json:
    """Write a limit; in force from `from_ns` until before `until_ns`, None being without end."""
    return {
        "id": str(limit_id),
        "kind": kind.value,
        "scope": scope_form(scope),
        "where": where_form(where),
        "resource": resource.value,
        "window": window,
        "cap": cap,
        "mode": mode.value,
        "hold": hold.value,
        "steps": list(steps),
        "cooldown_s": cooldown_s,
        "offset": 0,
        "offset_until_ns": None,
        "from_ns": from_ns,
        "until_ns": until_ns,
    }


def forms_of(row: Limit | InstallationLimit) -> list[Json]:
    """Write a limit of the table: two of them while its window is about to change.

    The old one ends where the new one begins. Both are written until the row is changed again,
    so that a snapshot does not depend on the moment it is made.
    """
    if row.next_window is None or row.next_from is None:
        return [_form(row, window_of(row).form())]
    from_ns = nanoseconds(row.next_from)
    return [
        _form(row, window_of(row).form(), until_ns=from_ns),
        _form(row, row.next_window, from_ns=from_ns),
    ]


def scope_form(scope: Scope) -> Json:
    """Write whose use is counted."""
    if scope.is_each:
        return {"kind": scope.kind.value, "each": True}
    return {"kind": scope.kind.value, "id": str(scope.id)}


def bare_snapshot(organization_id: UUID, limits: Sequence[Json]) -> bytes:
    """Write a policy of nothing but limits, to ask the engine what they count."""
    content: Json = {
        "organization_id": str(organization_id),
        "state": "active",
        "currency": "USD",
        "charging": NEUTRAL_CHARGING,
        "limits": sorted(limits, key=lambda each: str(each["id"])),
        "rules": [],
    }
    return canonical_json({**content, "version": canonical_hash(content)})


def order_of(form: Json) -> tuple[str, int]:
    """Order limits by id, and the two of one whose window changes by time."""
    return (str(form["id"]), form["from_ns"] or 0)


def _form(
    row: Limit | InstallationLimit,
    window: Json,
    *,
    from_ns: int | None = None,
    until_ns: int | None = None,
) -> Json:
    return limit_form(
        row.id,
        row.kind,
        scope_of_row(row),
        row.resource,
        window,
        row.cap,
        row.mode,
        hold=row.hold,
        where=row.where,
        steps=row.steps or (),
        cooldown_s=row.cooldown_s,
        from_ns=from_ns,
        until_ns=until_ns,
    )
