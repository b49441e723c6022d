"""The table of breakers that were reset by hand."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from sqlalchemy import BigInteger, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from controlplane.columns import choice
from controlplane.db import Versioned
from controlplane.limits.models import ScopeKind
from controlplane.scope import TenantRow


class BreakerOffset(Versioned, TenantRow):
    """What a breaker's windows had counted when it was last reset: not held against it.

    From `*_until_ns` on all that the amount stands for has left the window, and it counts for
    nothing. The breaker's thresholds may be its own or inherited.
    """

    __tablename__ = "breaker_offsets"
    __table_args__ = (UniqueConstraint("organization_id", "scope_kind", "scope_id"),)

    scope_kind: Mapped[ScopeKind] = mapped_column(choice(ScopeKind))
    scope_id: Mapped[UUID]
    minute_nanos: Mapped[int] = mapped_column(BigInteger)
    minute_until_ns: Mapped[int] = mapped_column(BigInteger)
    hour_nanos: Mapped[int] = mapped_column(BigInteger)
    hour_until_ns: Mapped[int] = mapped_column(BigInteger)
    reset_at: Mapped[datetime]

    def of_window(self, seconds: int) -> tuple[int, int]:
        """Tell the amount of one window in nano units, and until when it counts."""
        if seconds == MINUTE_S:
            return self.minute_nanos, self.minute_until_ns
        return self.hour_nanos, self.hour_until_ns


MINUTE_S = 60
