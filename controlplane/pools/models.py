"""The table of pools."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import String, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from controlplane.db import Versioned
from controlplane.scope import TenantRow

POOL_NAME_LENGTH_MAX = 200
# Archived ones count: their names stay taken.
POOLS_MAX = 10_000
# Each must have room for every request of the key.
POOLS_PER_KEY_MAX = 8


class Pool(Versioned, TenantRow):
    """What several keys draw on, each in full.

    An archived one is given to no further key; keys that have it keep it, and its limits go on
    to bind them.
    """

    __tablename__ = "pools"
    __table_args__ = (
        UniqueConstraint("organization_id", "id"),
        UniqueConstraint("organization_id", "name"),
    )

    name: Mapped[str] = mapped_column(String(POOL_NAME_LENGTH_MAX))
    created_at: Mapped[datetime]
    archived_at: Mapped[datetime | None]
