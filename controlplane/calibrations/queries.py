"""Reads of calibrations."""

from __future__ import annotations

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from controlplane.calibrations.models import Calibration


async def load_calibrations(session: AsyncSession) -> dict[tuple[str, str], int]:
    """Load what the bounds of models are multiplied by, by provider and model; others by 1."""
    rows = await session.execute(select(Calibration.provider, Calibration.model, Calibration.ratio))
    return {(provider, model): ratio for provider, model, ratio in rows}
