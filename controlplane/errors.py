"""Errors of the control plane.

ControlPlaneError
├── Faults that a caller can mend, each a `UserFault` with a stable code
│   ├── InvalidInput         INVALID
│   ├── NotFound             NOT_FOUND, also for what the caller may not see
│   ├── StaleVersion         STALE_VERSION
│   ├── Conflict             CONFLICT
│   ├── LimitExceeded        LIMIT_EXCEEDED, more of something than one may have
│   ├── InsufficientBalance  INSUFFICIENT_BALANCE, less is left than shall be taken
│   ├── CeilingExceeded      LIMIT_EXCEEDED, budgets that add up to more than that of their team
│   └── IdempotencyMismatch  IDEMPOTENCY_MISMATCH
├── NotPermitted             the caller's role does not allow the action
└── RecordsFull              the queue of records is full; nothing more may be admitted
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar
from uuid import UUID


@dataclass(frozen=True, slots=True)
class Subject:
    """What an error is about: the name of a table or of a kind of thing in it, and the row."""

    kind: str
    organization_id: UUID
    id: UUID


class ControlPlaneError(Exception):
    """Base of all errors that the control plane raises on purpose."""


class UserFault(ControlPlaneError):
    """A failure the caller can mend; `field` is the path of the input that caused it."""

    code: ClassVar[str]

    def __init__(self, message: str, *, field: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.message = message
        self.field = tuple(field)


class InvalidInput(UserFault):
    """A value is out of its range or contradicts another."""

    code = "INVALID"


class NotFound(UserFault):
    """There is no such object in what the caller may see."""

    code = "NOT_FOUND"


class StaleVersion(UserFault):
    """The object has changed since the caller read it; `current` names it, if it exists."""

    code = "STALE_VERSION"

    def __init__(
        self,
        message: str,
        *,
        field: Sequence[str] = ("expectedVersion",),
        current: Subject | None = None,
    ) -> None:
        super().__init__(message, field=field)
        self.current = current


class Conflict(UserFault):
    """The change contradicts the state the object is in."""

    code = "CONFLICT"


class LimitExceeded(UserFault):
    """There are as many of something as there may be; `maximum` says how many that is."""

    code = "LIMIT_EXCEEDED"

    def __init__(self, message: str, *, maximum: int, field: Sequence[str] = ()) -> None:
        super().__init__(message, field=field)
        self.maximum = maximum


class InsufficientBalance(UserFault):
    """A wallet would be left with less than has been spent from it."""

    code = "INSUFFICIENT_BALANCE"


class CeilingExceeded(UserFault):
    """Budgets would add up to more than the budget they are in; amounts in nano units."""

    code = "LIMIT_EXCEEDED"

    def __init__(
        self,
        message: str,
        *,
        limit_nanos: int,
        attempted_nanos: int,
        ceiling: Subject,
        field: Sequence[str] = (),
    ) -> None:
        super().__init__(message, field=field)
        self.limit_nanos = limit_nanos
        self.attempted_nanos = attempted_nanos
        self.ceiling = ceiling


class IdempotencyMismatch(UserFault):
    """The idempotency key was used before with another input."""

    code = "IDEMPOTENCY_MISMATCH"


class NotPermitted(ControlPlaneError):
    """The caller's role does not allow the action."""


class RecordsFull(ControlPlaneError):
    """The queue of records is full, so that nothing more may be admitted."""
