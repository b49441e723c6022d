"""The tables of virtual keys, their secrets and of idempotency keys."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from uuid import UUID

from sqlalchemy import ForeignKey, Index, LargeBinary, String, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from controlplane.columns import choice, json_column, same_organization
from controlplane.db import Versioned
from controlplane.scope import TenantRow

KEY_NAME_LENGTH_MAX = 200
IDEMPOTENCY_KEY_LENGTH_MAX = 255


class KeyState(StrEnum):
    """Whether a key may be used; expiry is told by `expires_at`."""

    ACTIVE = "active"
    DISABLED = "disabled"
    REVOKED = "revoked"


class VirtualKey(Versioned, TenantRow):
    """A key of at most one team and at most one member, which owns it."""

    __tablename__ = "virtual_keys"
    __table_args__ = (
        UniqueConstraint("organization_id", "id"),
        Index(None, "organization_id", "team_id"),
        Index(None, "organization_id", "member_id"),
        same_organization("team_id", "teams"),
        same_organization("member_id", "members"),
        same_organization("cost_center_id", "cost_centers"),
    )

    name: Mapped[str] = mapped_column(String(KEY_NAME_LENGTH_MAX))
    team_id: Mapped[UUID | None]
    member_id: Mapped[UUID | None]
    cost_center_id: Mapped[UUID | None]
    state: Mapped[KeyState] = mapped_column(choice(KeyState))
    expires_at: Mapped[datetime | None]
    prefix: Mapped[str] = mapped_column(String(20))
    last_four: Mapped[str] = mapped_column(String(4))
    tags: Mapped[dict[str, str]] = mapped_column(json_column())
    # Of the pools it draws on, sorted; they are never deleted, only archived.
    pool_ids: Mapped[list[str] | None] = mapped_column(json_column())
    created_by: Mapped[UUID | None] = mapped_column(ForeignKey("users.id"))
    created_at: Mapped[datetime]


class KeySecret(TenantRow):
    """The digest of one secret of a key; a key has two while it is being rotated."""

    __tablename__ = "key_secrets"
    __table_args__ = (
        Index(None, "organization_id", "key_id"),
        same_organization("key_id", "virtual_keys"),
    )

    key_id: Mapped[UUID]
    digest: Mapped[bytes] = mapped_column(LargeBinary(32), unique=True)
    expires_at: Mapped[datetime | None]
    created_at: Mapped[datetime]


class IdempotencyKey(TenantRow):
    """The first use of an idempotency key by a caller, and what came of it."""

    __tablename__ = "idempotency_keys"
    __table_args__ = (UniqueConstraint("organization_id", "caller", "key"),)

    caller: Mapped[str] = mapped_column(String(60))
    key: Mapped[str] = mapped_column(String(IDEMPOTENCY_KEY_LENGTH_MAX))
    fingerprint: Mapped[str] = mapped_column(String(64))
    result_id: Mapped[UUID]
    created_at: Mapped[datetime]
