"""The table of calibrations."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from sqlalchemy.orm import Mapped, mapped_column

from controlplane.db import Row, Versioned
from controlplane.ids import derived_id

# A bound that was a thousand times too low is no bound: more would only hide what is wrong.
RATIO_MAX = 1_000


class Calibration(Versioned, Row):
    """What the bounds of a provider's model are multiplied by; without a row by 1.

    An overrun raises it to what was seen, only an operator lowers it. `model` is the name callers
    use. `raised_at` and `request_id` are of the last overrun that raised it.
    """

    __tablename__ = "calibrations"

    id: Mapped[UUID] = mapped_column(primary_key=True)
    provider: Mapped[str]
    model: Mapped[str]
    ratio: Mapped[int]
    raised_at: Mapped[datetime | None]
    request_id: Mapped[UUID | None]


def calibration_id(provider: str, model: str) -> UUID:
    """Name the calibration of a provider's model, whether there is one or not."""
    return derived_id("calibration", f"{provider}\0{model}")
