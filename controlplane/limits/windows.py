"""Windows of limits as values, and how they are spelled in a limit's slot."""

from __future__ import annotations

from dataclasses import dataclass

from controlplane.canonical import canonical_hash
from controlplane.limits.models import Period, Resource, WindowKind


@dataclass(frozen=True, slots=True)
class Rolling:
    """The last `seconds` seconds."""

    seconds: int

    @property
    def name(self) -> str:
        """Spell the window for a slot."""
        return f"{WindowKind.ROLLING.value}:{self.seconds}"


@dataclass(frozen=True, slots=True)
class Calendar:
    """A calendar period in a time zone; the zone is no part of the slot."""

    period: Period
    time_zone: str

    @property
    def name(self) -> str:
        """Spell the window for a slot."""
        return f"{WindowKind.CALENDAR.value}:{self.period.value}"


Window = Rolling | Calendar


def slot_of(where: dict[str, list[str]] | None, resource: Resource, window: Window) -> str:
    """Spell what a scope can have one limit of a kind for."""
    slot = f"{resource.value}/{window.name}"
    return slot if where is None else f"{slot}/{canonical_hash(where)}"
