"""Names of scopes that have no row of their own, and the ids that stand for them."""

from __future__ import annotations

from hashlib import sha256
from uuid import UUID

from controlplane.inputs import checked_text
from controlplane.limits.models import LABEL_LENGTH_MAX, ScopeKind


def label_id(kind: ScopeKind, label: str) -> UUID:
    """Derive the id of a scope from its label, compared exactly; the engine does the same.

    The first 16 bytes of SHA-256 over kind, a zero byte and label in UTF-8.
    """
    return UUID(bytes=sha256(f"{kind.value}\0{label}".encode()).digest()[:16])


def each_id(kind: ScopeKind) -> UUID:
    """Stand for each label of a kind; no label has this id, since none is empty."""
    return label_id(kind, "")


def member_in_team_label(member_id: UUID, team_id: UUID) -> str:
    """Name a member in a team."""
    return f"{member_id}/{team_id}"


def member_and_team(label: str) -> tuple[UUID, UUID]:
    """Read which member in which team a label names."""
    member_id, _, team_id = label.partition("/")
    return UUID(member_id), UUID(team_id)


def checked_label(label: str, field: str) -> str:
    """Accept a label: 1 to 200 printable characters, without blanks around it.

    Raises `InvalidInput`.
    """
    return checked_text(label, field, LABEL_LENGTH_MAX)
