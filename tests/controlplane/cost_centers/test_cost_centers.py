"""Cost centers: codes are unique for ever, their number is bounded."""

from __future__ import annotations

import pytest

from controlplane.cost_centers import service
from controlplane.cost_centers.service import (
    archive_cost_center,
    create_cost_center,
    update_cost_center,
)
from controlplane.errors import Conflict, InvalidInput, LimitExceeded
from tests.controlplane.everything import everything


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"code": " "}, "code"),
        ({"code": "x" * 61}, "code"),
        ({"name": ""}, "name"),
        ({"name": "x" * 201}, "name"),
        ({"name": "a\x00b"}, "name"),
    ],
)
async def test_an_unusable_cost_center_is_not_made(work_as, org, database, values, field) -> None:
    before = await everything(database)
    with pytest.raises(InvalidInput) as raised:
        async with work_as(org.admin) as work:
            await create_cost_center(work, org.id, **{"code": "1", "name": "One", **values})
    assert raised.value.field == (field,)
    assert await everything(database) == before


async def test_a_code_stays_taken_when_archived(work_as, org, foreign, database) -> None:
    async with work_as(org.admin) as work:
        old = await create_cost_center(work, org.id, code=" CC-1 ", name="Old")
        new = await create_cost_center(work, org.id, code="CC-2", name="New")
        await archive_cost_center(work, org.id, old.id, expected_version=1)
    assert old.code == "CC-1"
    before = await everything(database)
    for code in ("CC-1", "CC-2"):
        with pytest.raises(Conflict) as raised:
            async with work_as(org.admin) as work:
                await create_cost_center(work, org.id, code=code, name="Other")
        assert raised.value.field == ("code",)
    with pytest.raises(Conflict):
        async with work_as(org.admin) as work:
            await update_cost_center(work, org.id, new.id, {"code": "CC-1"}, expected_version=1)
    assert await everything(database) == before
    async with work_as(foreign.admin) as work:
        await create_cost_center(work, foreign.id, code="CC-1", name="Theirs")


async def test_there_are_only_so_many(work_as, org, database, monkeypatch) -> None:
    monkeypatch.setattr(service, "COST_CENTERS_MAX", 2)
    async with work_as(org.admin) as work:
        first = await create_cost_center(work, org.id, code="1", name="One")
        await archive_cost_center(work, org.id, first.id, expected_version=1)
        await create_cost_center(work, org.id, code="2", name="Two")
    before = await everything(database)
    with pytest.raises(LimitExceeded) as raised:
        async with work_as(org.admin) as work:
            await create_cost_center(work, org.id, code="3", name="Three")
    assert raised.value.maximum == 2
    assert await everything(database) == before
