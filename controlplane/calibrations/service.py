"""Setting a calibration by hand; the batch that books an overrun raises it by itself."""

from __future__ import annotations

from controlplane.audit.service import facts, record
from controlplane.authz import require_operator
from controlplane.calibrations.models import RATIO_MAX, Calibration, calibration_id
from controlplane.context import Work
from controlplane.inputs import checked_number, checked_text
from controlplane.versions import check_version

NAME_LENGTH_MAX = 200
REASON_LENGTH_MAX = 200


async def set_calibration(
    work: Work,
    *,
    provider: str,
    model: str,
    ratio: int,
    reason: str,
    expected_version: int | None = None,
) -> Calibration:
    """Set what the bounds of a provider's model are multiplied by, up or down.

    Raises `InvalidInput`, `StaleVersion`, `NotPermitted`.
    """
    require_operator(work.caller)
    provider = checked_text(provider, "provider", NAME_LENGTH_MAX)
    model = checked_text(model, "model", NAME_LENGTH_MAX)
    checked_number(ratio, "ratio", 1, RATIO_MAX)
    reason = checked_text(reason, "reason", REASON_LENGTH_MAX)
    row = await work.session.get(Calibration, calibration_id(provider, model))
    check_version(None if row is None else row.version, expected_version or None, None)
    before = None if row is None else facts(row)
    if row is None:
        row = Calibration(id=calibration_id(provider, model), provider=provider, model=model)
        work.session.add(row)
    row.ratio = ratio
    await work.session.flush()
    record(
        work,
        "calibration.set",
        row,
        organization_id=None,
        before=before,
        after=facts(row),
        reason=reason,
    )
    work.announce_installation()
    return row
