"""The operator sets what the bounds of a model are multiplied by; nobody else."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import select

from controlplane.audit.models import AdminEvent
from controlplane.authz import SYSTEM, Caller
from controlplane.calibrations.models import RATIO_MAX, Calibration, calibration_id
from controlplane.calibrations.queries import load_calibrations
from controlplane.calibrations.service import NAME_LENGTH_MAX, set_calibration
from controlplane.errors import InvalidInput, NotPermitted, StaleVersion
from controlplane.ids import derived_id
from tests.controlplane.everything import everything

WANTED: dict[str, Any] = {"provider": "one", "model": "large", "ratio": 5, "reason": "seen"}


async def put(work_as, caller: Caller = SYSTEM, **fields: Any) -> Calibration:
    async with work_as(caller) as work:
        return await set_calibration(work, **(WANTED | fields))


async def loaded(database) -> dict[tuple[str, str], int]:
    async with database.read() as session:
        return await load_calibrations(session)


async def test_it_is_raised_lowered_and_on_record(work_as, database):
    await put(work_as)
    assert await loaded(database) == {("one", "large"): 5}
    await put(work_as, ratio=1, expected_version=1)
    await put(work_as, provider="two")
    assert await loaded(database) == {("one", "large"): 1, ("two", "large"): 5}
    async with database.read() as session:
        query = select(AdminEvent).where(AdminEvent.before.is_not(None))
        event = await session.scalar(query.order_by(AdminEvent.id))
    assert (event.action, event.organization_id) == ("calibration.set", None)
    assert event.target_id == calibration_id("one", "large")
    assert (event.before["ratio"], event.after["ratio"]) == (5, 1)
    assert event.after["reason"] == "seen"


async def test_who_decides_is_told(work_as, events):
    told: list[str] = []

    async def listen() -> None:
        told.append("changed")

    events.subscribe_installation(listen)
    await put(work_as)
    assert told == ["changed"]


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"ratio": 0}, "ratio"),
        ({"ratio": RATIO_MAX + 1}, "ratio"),
        ({"provider": ""}, "provider"),
        ({"model": "m" * (NAME_LENGTH_MAX + 1)}, "model"),
        ({"reason": " "}, "reason"),
    ],
)
async def test_what_is_out_of_range_changes_nothing(work_as, database, fields, field):
    await put(work_as, ratio=RATIO_MAX, model="m" * NAME_LENGTH_MAX)
    before = await everything(database)
    with pytest.raises(InvalidInput) as caught:
        await put(work_as, expected_version=1, **fields)
    assert caught.value.field == (field,)
    assert await everything(database) == before


async def test_a_stale_edit_changes_nothing(work_as, database):
    with pytest.raises(StaleVersion):
        await put(work_as, expected_version=1)
    await put(work_as)
    before = await everything(database)
    for version in (None, 0, 2):
        with pytest.raises(StaleVersion):
            await put(work_as, ratio=1, expected_version=version)
    assert await everything(database) == before


async def test_no_role_in_an_organization_sets_one(work_as, org, database):
    before = await everything(database)
    for caller in org.callers().values():
        with pytest.raises(NotPermitted):
            await put(work_as, caller)
    assert await everything(database) == before


def test_ids_are_derived_as_the_engine_derives_them():
    # SHA-256 of "feature", a zero byte and "search", its first half.
    assert derived_id("feature", "search").hex == "ef07811255cd08566fe7ce455cc6f8a3"
    assert calibration_id("a", "b") != calibration_id("a\0", "b") != calibration_id("ab", "")
