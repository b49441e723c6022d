"""The product without its decision records, to show what they cost.

Settlements are acknowledged to the engine as the ledger would, since it stops admitting when too
many are not in the ledger.
"""

from __future__ import annotations

from typing import Any

from litestar import Litestar

from comptroller.app import create_app_from_environment
from core_rs import Settlement
from proxy.course import Course

ACKNOWLEDGED_EVERY = 1_000


def create_app() -> Litestar:
    """Make the application with a recorder that writes nothing."""
    app = create_app_from_environment()
    comptroller = app.state.comptroller

    def settlement_alone(
        course: Course, _clock: Any, _measured: Any = None, settlement: Settlement | None = None
    ) -> tuple[int, Settlement | None]:
        return course.principal.organization, settlement

    def acknowledge(booked: tuple[int, Settlement | None]) -> None:
        organization, settlement = booked
        if settlement is not None and settlement.seq % ACKNOWLEDGED_EVERY == 0:
            comptroller.engine.booked_through(organization, settlement.seq)

    Course.record = settlement_alone  # type: ignore[assignment, method-assign]
    comptroller.recorder.put = acknowledge
    return app
