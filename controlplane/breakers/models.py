"""The table of breakers that were reset by hand."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from sqlalchemy import BigInteger, Index
from sqlalchemy.orm import Mapped, mapped_column

from controlplane.columns import choice
from controlplane.db import Versioned
from controlplane.limits.models import ScopeKind
from controlplane.scope import TenantRow


class BreakerOffset(Versioned, TenantRow):
    """What one window of a breaker had counted when it was reset, and is not held against it.

    Its `id` is that of the breaker's window, whether its threshold is the scope's own or
    inherited. At `until_ns` all that it stands for has left the window.
    """

    __tablename__ = "breaker_offsets"
    __table_args__ = (Index(None, "organization_id"),)

    scope_kind: Mapped[ScopeKind] = mapped_column(choice(ScopeKind))
    scope_id: Mapped[UUID]
    seconds: Mapped[int]
    amount_nanos: Mapped[int] = mapped_column(BigInteger)
    until_ns: Mapped[int] = mapped_column(BigInteger)
    created_at: Mapped[datetime]
