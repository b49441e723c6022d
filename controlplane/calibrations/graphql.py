"""Calibrations in the API, for the operator."""

from __future__ import annotations

from datetime import datetime

import strawberry
from sqlalchemy import select

from controlplane.api.connections import (
    FIRST_DEFAULT,
    After,
    Connection,
    First,
    Ordering,
    connect,
    page_in_order,
)
from controlplane.api.faults import UserError, attempt
from controlplane.api.fields import mutation, resolved
from controlplane.api.request import Info
from controlplane.authz import require_operator
from controlplane.calibrations import models, service
from controlplane.context import Work
from controlplane.usage.graphql import REQUEST_ID_PREFIX

_BY_NAME: Ordering[models.Calibration] = Ordering(
    "provider-model",
    models.Calibration.provider + "/" + models.Calibration.model,
    models.Calibration.id,
)


@strawberry.type(
    description="By how much a model's bounds are multiplied since it billed more than they said."
)
class Calibration:
    """By how much a model's bounds are multiplied."""

    provider: str = strawberry.field(description="Whose model it is.")
    model: str = strawberry.field(description="The name that callers use.")
    ratio: int = strawberry.field(description="What its bounds are multiplied by, from 1.")
    raised_at: datetime | None = strawberry.field(
        description="When an overrun last raised it; null: none ever did."
    )
    request_id: str | None = strawberry.field(
        description="The request that overran then, as in `x-request-id`."
    )
    version: int = strawberry.field(description="Counts changes; see `expectedVersion`.")


@strawberry.input(description="What the bounds of a model shall be multiplied by.")
class CalibrationSetInput:
    """What the bounds of a model shall be multiplied by."""

    provider: str = strawberry.field(description="Whose model it is.")
    model: str = strawberry.field(description="The name that callers use.")
    ratio: int = strawberry.field(description="The ratio, 1 to 1000; 1 takes bounds as they are.")
    reason: str = strawberry.field(description="Why, for the record, up to 200 characters.")
    expected_version: int | None = strawberry.field(
        default=None, description="The version you have seen; null where there is none yet."
    )


@strawberry.type(description="The calibration, or why nothing was changed.")
class CalibrationPayload:
    """The calibration, or why nothing was changed."""

    calibration: Calibration | None = strawberry.field(
        description="The calibration; null when errors."
    )
    errors: list[UserError] = strawberry.field(description="What you can mend.")


def calibration_of(row: models.Calibration) -> Calibration:
    """Show a calibration."""
    return Calibration(
        provider=row.provider,
        model=row.model,
        ratio=row.ratio,
        raised_at=row.raised_at,
        request_id=None if row.request_id is None else f"{REQUEST_ID_PREFIX}{row.request_id.hex}",
        version=row.version,
    )


@strawberry.type
class CalibrationQuery:
    """What the operator asks about calibrations."""

    @resolved("Calibrations of models that have any, by provider and model. For the operator.")
    async def calibrations(
        self, info: Info, first: First = FIRST_DEFAULT, after: After = None
    ) -> Connection[Calibration]:
        """List calibrations."""
        require_operator(info.context.caller)
        async with info.context.backend.database.read() as session:
            items, has_next = await page_in_order(
                session, select(models.Calibration), _BY_NAME, first=first, after=after
            )
        shown = [(cursor, calibration_of(row)) for cursor, row in items]
        return connect(shown, has_next=has_next, has_previous=after is not None)


@strawberry.type
class CalibrationMutation:
    """Changes to calibrations."""

    @mutation("Set what the bounds of a model are multiplied by. For the operator.")
    async def calibration_set(
        self,
        info: Info,
        input: CalibrationSetInput,  # noqa: A002
    ) -> CalibrationPayload:
        """Set a calibration."""

        async def change(work: Work) -> models.Calibration:
            return await service.set_calibration(
                work,
                provider=input.provider,
                model=input.model,
                ratio=input.ratio,
                reason=input.reason,
                expected_version=input.expected_version,
            )

        row, errors = await attempt(info, change)
        return CalibrationPayload(
            calibration=None if row is None else calibration_of(row), errors=errors
        )
