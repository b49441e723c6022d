"""The API, and an organization whose members have keys of their own."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

import pytest

from controlplane.keys.service import NewKey, create_key
from tests.controlplane.api.conftest import api, one_schema
from tests.controlplane.usage.records import request

__all__ = ["api", "one_schema"]


@dataclass(frozen=True, slots=True)
class Keys:
    """A key of each of two members, who are in different teams."""

    mine: UUID
    other: UUID


@pytest.fixture
async def keys(work_as, org) -> Keys:
    made = {}
    async with work_as(org.admin) as work:
        for name, owner in (("mine", org.member), ("other", org.other_member)):
            place = owner.membership
            new = NewKey(name, member_id=place.member_id, team_id=place.team_id)
            created = await create_key(work, org.id, new, idempotency_key=name)
            made[name] = created.key.id
    return Keys(**made)


@pytest.fixture
def by(org, keys):
    """Make a request with the key of `member` or of `other_member`."""

    def make(owner: str, **fields):
        place = getattr(org, owner).membership
        key_id = keys.mine if owner == "member" else keys.other
        whose = {"key_id": key_id, "team_id": place.team_id, "member_id": place.member_id}
        return request(org.id, **(whose | fields))

    return make
