"""The table of plans."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from sqlalchemy import BigInteger, String
from sqlalchemy.orm import Mapped, mapped_column

from controlplane.columns import json_column
from controlplane.db import Row, Versioned

PLAN_NAME_LENGTH_MAX = 200
# Archived ones count: their names stay taken.
PLANS_MAX = 1_000


class Plan(Versioned, Row):
    """What organizations on it pay and how much they may ask for; None sets no limit.

    `markup_ppm` are millionths of the cost. `fees` maps currencies to nano units of them, added to
    each request that costs anything; an empty one means no fee in any currency. An archived plan
    is given to nothing new; who has it keeps it.
    """

    __tablename__ = "plans"

    id: Mapped[UUID] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(PLAN_NAME_LENGTH_MAX), unique=True)
    markup_ppm: Mapped[int] = mapped_column(BigInteger)
    fees: Mapped[dict[str, int]] = mapped_column(json_column())
    requests_per_month: Mapped[int | None] = mapped_column(BigInteger)
    requests_per_day: Mapped[int | None] = mapped_column(BigInteger)
    requests_per_minute: Mapped[int | None] = mapped_column(BigInteger)
    created_at: Mapped[datetime]
    archived_at: Mapped[datetime | None]
