"""The table of administrative events."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from sqlalchemy import ForeignKey, Index, String
from sqlalchemy.orm import Mapped, mapped_column

from controlplane.columns import Json, json_column
from controlplane.db import Row


class AdminEvent(Row):
    """One administrative act; `organization_id` is null for acts on the installation itself."""

    __tablename__ = "admin_events"
    __table_args__ = (Index(None, "organization_id", "id"),)

    id: Mapped[UUID] = mapped_column(primary_key=True)
    organization_id: Mapped[UUID | None] = mapped_column(ForeignKey("organizations.id"))
    actor_kind: Mapped[str] = mapped_column(String(20))
    actor_id: Mapped[UUID | None] = mapped_column(ForeignKey("users.id"))
    action: Mapped[str] = mapped_column(String(60))
    target_kind: Mapped[str] = mapped_column(String(30))
    target_id: Mapped[UUID]
    before: Mapped[Json | None] = mapped_column(json_column())
    after: Mapped[Json | None] = mapped_column(json_column())
    at: Mapped[datetime]
