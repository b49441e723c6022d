"""What is looked up for many scopes at once, more than SQLite joins by OR."""

from __future__ import annotations

from uuid import uuid4

from controlplane.limits.models import Period, ScopeKind
from controlplane.limits.queries import budgets_of_scopes
from controlplane.limits.service import upsert_budget
from controlplane.limits.subjects import Scope
from controlplane.policies.queries import rules_of
from controlplane.policies.service import set_rule


async def test_thousands_of_scopes_are_looked_up_at_once(work_as, org, database) -> None:
    team = Scope(ScopeKind.TEAM, org.team)
    async with work_as(org.admin) as work:
        budget = await upsert_budget(work, org.id, team, period=Period.DAY, cap_nanos=1)
        rule = await set_rule(work, org.id, team, {"models": ["a"]})
    many = [Scope(ScopeKind.KEY, uuid4()) for _ in range(2_000)]
    async with database.read() as session:
        for scopes, found in [
            ([*many, team], True),
            ([*many, Scope(ScopeKind.MEMBER, org.team)], False),
            ([], False),
        ]:
            budgets = await budgets_of_scopes(session, org.id, scopes)
            rules = await rules_of(session, org.id, scopes)
            assert [row.id for row in budgets] == ([budget.id] if found else [])
            assert [row.id for row in rules] == ([rule.id] if found else [])
