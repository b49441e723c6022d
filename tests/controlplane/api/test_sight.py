"""What hangs on an object is no way around what a caller may see."""

from __future__ import annotations

from controlplane.api.nodes import NodeKind, global_id
from controlplane.keys.service import NewKey, create_key
from controlplane.limits.models import Period, ScopeKind
from controlplane.limits.service import upsert_budget
from controlplane.limits.subjects import Scope
from controlplane.tenancy.changes import update_member
from tests.controlplane.conftest import member_id

OWN_TEAM = """{ viewer { memberships { team {
  name budgets { limit state { settled } } breaker { windows { current } } } } } }"""
OWNER = """query($key: ID!) { node(id: $key) { ... on VirtualKey { name team { name }
  owner { user { email } budgets { limit } } } } }"""


async def test_a_plain_member_sees_its_team_by_name_alone(api, org, work_as) -> None:
    async with work_as(org.admin) as work:
        scope = Scope(ScopeKind.TEAM, org.team)
        await upsert_budget(work, org.id, scope, period=Period.MONTH, cap_nanos=10**11)
        new = NewKey("of others", team_id=org.team)
        await create_key(work, org.id, new, idempotency_key="1")
    await api.traffic()

    async def team_for(caller) -> object:
        found = await api.ask(await api.token(caller), OWN_TEAM)
        return found["viewer"]["memberships"][0]["team"]

    assert await team_for(org.member) == {"name": "Red", "budgets": [], "breaker": None}
    assert await team_for(org.team_admin) == {
        "name": "Red",
        "budgets": [{"limit": "100.00", "state": {"settled": "0.05"}}],
        "breaker": {"windows": [{"current": "0.05"}, {"current": "0.05"}]},
    }


async def test_an_owner_who_left_the_team_is_its_admins_no_more(api, org, work_as) -> None:
    owner = member_id(org.member)
    async with work_as(org.member) as work:
        made = (await create_key(work, org.id, NewKey("ci"), idempotency_key="1")).key
    async with work_as(org.admin) as work:
        scope = Scope(ScopeKind.MEMBER, owner)
        await upsert_budget(work, org.id, scope, period=Period.MONTH, cap_nanos=10**11)
        changes = {"team_id": org.other_team}
        await update_member(work, org.id, owner, changes, expected_version=1)
    key = global_id(NodeKind.KEY, org.id, made.id)
    shown = {"user": {"email": "member@acme.example"}, "budgets": [{"limit": "100.00"}]}
    for caller, expected in [
        (org.admin, {"name": "ci", "team": {"name": "Red"}, "owner": shown}),
        (org.team_admin, {"name": "ci", "team": {"name": "Red"}, "owner": None}),
    ]:
        assert await api.ask(await api.token(caller), OWNER, key=key) == {"node": expected}
