"""Limits that are no rows: they follow from something else an organization has."""

from __future__ import annotations

from typing import Any
from uuid import UUID, uuid5

from controlplane.limits.models import Resource, ScopeKind

# Fixed for ever: a limit keeps its name when what it follows from changes.
_NAMESPACE = UUID("0d3a1c52-6b6e-5b0e-8a53-4f0f64a1f0c7")


def derived_id(organization_id: UUID, slot: str) -> UUID:
    """Name the limit that an organization has in a slot, whatever it follows from."""
    return uuid5(_NAMESPACE, f"{organization_id}/{slot}")


def derived_limit(
    organization_id: UUID, slot: str, *, kind: str, resource: Resource, window: Any, cap: int
) -> dict[str, Any]:
    """Write a hard limit on all of an organization as the engine reads it."""
    return {
        "id": str(derived_id(organization_id, slot)),
        "kind": kind,
        "scope": {"kind": ScopeKind.ORGANIZATION.value, "id": str(organization_id)},
        "where": None,
        "resource": resource.value,
        "window": window,
        "cap": cap,
        "mode": "hard",
        "hold": "bound",
        "steps": [],
        "cooldown_s": None,
        "offset": 0,
        "offset_until_ns": None,
        "from_ns": None,
        "until_ns": None,
    }
