"""Records name the cost center, team and member under which a request was decided."""

from __future__ import annotations

import json
from uuid import UUID, uuid4

from comptroller.simulator.running import RunningSimulator
from controlplane.context import Work
from controlplane.keys.models import VirtualKey
from controlplane.limits.models import Period, ScopeKind
from controlplane.limits.subjects import Scope
from controlplane.tenancy.models import CostCenter, Team
from controlplane.tenancy.service import create_team, key_changed, policy_changed
from tests.proxy.asking import ask
from tests.proxy.raw_http import BODY, JSON, LENGTH, connected, head, read_answer
from tests.stack import Stack


async def _cost_center(work: Work, organization_id: UUID, code: str) -> UUID:
    center = CostCenter(
        id=uuid4(),
        organization_id=organization_id,
        code=code,
        name=code,
        created_at=work.now,
        archived_at=None,
    )
    work.session.add(center)
    await work.session.flush()
    return center.id


def test_every_record_has_the_effective_cost_center(
    stack: Stack, provider: RunningSimulator
) -> None:
    key_id, secret = stack.key()

    async def of_team(work: Work) -> UUID:
        center = await _cost_center(work, stack.organization_id, "4711")
        team = await work.session.get(Team, stack.team_id)
        assert team is not None
        team.cost_center_id = center
        await policy_changed(work, stack.organization_id)
        return center

    async def of_key(work: Work) -> UUID:
        center = await _cost_center(work, stack.organization_id, "4712")
        key = await work.session.get(VirtualKey, key_id)
        assert key is not None
        key.cost_center_id = center
        await key_changed(work, stack.organization_id, key_id, policy=False)
        return center

    assert ask(stack, secret=secret).status_code == 200
    team = stack.change(of_team)
    assert ask(stack, secret=secret).status_code == 200
    assert ask(stack, secret=secret, model="no-such-model").status_code == 404
    own = stack.change(of_key)
    assert ask(stack, secret=secret).status_code == 200
    stack.budget(stack.scope(ScopeKind.KEY, key_id), "0")
    assert ask(stack, secret=secret).status_code == 402
    charged = [record.cost_center_id for record in stack.records()]
    assert charged == [None, team, team, own, own]
    assert provider.bill()["requests"] == 3


def test_a_key_that_moves_while_its_body_arrives_is_booked_where_it_went(stack: Stack) -> None:
    key_id, secret = stack.key()

    async def new_team(work: Work) -> tuple[UUID, UUID]:
        team = await create_team(work, stack.organization_id, name="Elsewhere")
        center = await _cost_center(work, stack.organization_id, "4713")
        team.cost_center_id = center
        return team.id, center

    async def move(work: Work) -> None:
        key = await work.session.get(VirtualKey, key_id)
        assert key is not None
        key.team_id, key.member_id = team_id, None
        await key_changed(work, stack.organization_id, key_id, policy=False)

    team_id, center = stack.change(new_team)
    for team in (team_id, stack.team_id):
        stack.budget(Scope(ScopeKind.TEAM, team), "1.00", period=Period.DAY)
    with connected(stack) as connection:
        connection.sendall(head(secret, JSON, LENGTH, b"expect: 100-continue"))
        # The body is asked for once the key has been looked up.
        assert connection.recv(1024).startswith(b"HTTP/1.1 100 ")
        stack.change(move)
        connection.sendall(BODY)
        assert read_answer(connection).status == 200
    [record] = stack.records()
    assert (record.team_id, record.member_id) == (team_id, None)
    assert record.cost_center_id == center
    clock = stack.comptroller.clock
    now = (clock.wall_ns(), clock.mono_ns())
    states = json.loads(stack.engine.limit_states(str(stack.organization_id), *now))
    used = {each["scope"]["id"]: each["used"] for each in states if each["kind"] == "budget"}
    assert used == {str(team_id): record.charge_nanos, str(stack.team_id): 0}
    assert record.charge_nanos > 0
