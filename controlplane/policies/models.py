"""The table of model rules."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from sqlalchemy import UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from controlplane.columns import choice, json_column
from controlplane.db import Versioned
from controlplane.limits.models import ScopeKind
from controlplane.scope import TenantRow


class ModelRule(Versioned, TenantRow):
    """The models a scope may use: null allows all, an empty list none."""

    __tablename__ = "model_rules"
    __table_args__ = (UniqueConstraint("organization_id", "scope_kind", "scope_id"),)

    scope_kind: Mapped[ScopeKind] = mapped_column(choice(ScopeKind))
    scope_id: Mapped[UUID]
    allow: Mapped[list[str] | None] = mapped_column(json_column())
    created_at: Mapped[datetime]
