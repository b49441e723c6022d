"""The table of exchange rates."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from sqlalchemy import BigInteger, ForeignKey, String, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from controlplane.db import Row


class ExchangeRate(Row):
    """How much of a currency one unit of the base currency is worth, from an instant on.

    Rows are only ever added; `version` counts those of a currency. `picos` are units of the
    currency times 10^12. Of two rates from the same instant the later version holds.
    """

    __tablename__ = "exchange_rates"
    __table_args__ = (UniqueConstraint("currency", "version"),)

    id: Mapped[UUID] = mapped_column(primary_key=True)
    currency: Mapped[str] = mapped_column(String(3))
    version: Mapped[int]
    picos: Mapped[int] = mapped_column(BigInteger)
    starts_at: Mapped[datetime]
    entered_by: Mapped[UUID | None] = mapped_column(ForeignKey("users.id"))
    entered_at: Mapped[datetime]
