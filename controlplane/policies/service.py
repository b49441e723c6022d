"""Changes to rules."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from uuid import UUID

from controlplane.audit.service import facts, record
from controlplane.authz import Action, Reach, Target, require
from controlplane.context import Work
from controlplane.errors import InvalidInput
from controlplane.limits.models import ScopeKind
from controlplane.limits.subjects import Scope, target_of_scope
from controlplane.policies.models import Rule
from controlplane.policies.narrowing import refuse_widening
from controlplane.policies.queries import rule_of
from controlplane.policies.values import (
    NAMES,
    SILENT,
    RuleChanges,
    RuleValues,
    checked_changes,
    values_of,
)
from controlplane.scope import subject_of
from controlplane.tenancy.service import policy_changed
from controlplane.versions import check_version

RULED = frozenset({ScopeKind.ORGANIZATION, ScopeKind.TEAM, ScopeKind.KEY})
# A key that acts for an agent is stopped after so many failing requests of the same text.
AGENT_RETRY_STORM_MAX = 5


async def set_rule(
    work: Work,
    organization_id: UUID,
    scope: Scope,
    changes: RuleChanges,
    *,
    expected_version: int | None = None,
) -> Rule:
    """Change the rule of an organization, a team or a key; what is left out stays as it is.

    A team's admin can only narrow what holds already.

    Raises `InvalidInput`, `StaleVersion`, `NotFound`, `NotPermitted`.
    """
    target = await target_of_scope(work.session, organization_id, scope)
    require(work.caller, Action.MODELS_WRITE, target, scope.kind.value)
    if scope.kind not in RULED:
        raise InvalidInput("A rule is an organization's, a team's or a key's.", field=("scope",))
    checked = checked_changes(changes)
    row = await rule_of(work.session, organization_id, scope)
    if row is None:
        # Where there is no rule yet, version 0 is as true as none.
        check_version(None, expected_version or None, None)
    else:
        check_version(row.version, expected_version, subject_of(row))
    known = values_of(row)
    wanted = replace(known, **checked)
    if work.caller.reach(Action.MODELS_WRITE, organization_id) is not Reach.ORGANIZATION:
        refuse_widening(known, wanted, await _above(work, target, scope))
    if row is not None and wanted == known:
        return row
    row = await _put(work, organization_id, scope, wanted, row)
    await policy_changed(work, organization_id)
    return row


async def set_new_key_rule(
    work: Work,
    target: Target,
    key_id: UUID,
    *,
    models: Sequence[str] | None = None,
    agent: str | None = None,
) -> None:
    """Give a key that is just being created its rule: who may create it may narrow it.

    A key with an agent stamps its requests with it, whatever their callers say, and cuts off
    repeated retries. `target` is to whom the key belongs.

    Raises `InvalidInput`.
    """
    scope = Scope(ScopeKind.KEY, key_id)
    wanted = SILENT
    if models is not None:
        changes = RuleChanges(models=models)
        wanted = replace(wanted, **checked_changes(changes, {"models": "allowedModels"}))
    if agent is not None:
        above = await _above(work, target, scope)
        checked = checked_changes(RuleChanges(fixed={"agent": agent}), {"fixed": "agent"})
        fixed = checked["fixed"]["agent"]
        storm_max = next(
            (each.retry_storm_max for each in above if each.retry_storm_max is not None),
            AGENT_RETRY_STORM_MAX,
        )
        checked["retry_storm_max"] = min(storm_max, AGENT_RETRY_STORM_MAX)
        if any(each.fixed.get("agent", fixed) != fixed for each in above):
            raise InvalidInput("Its team or organization fixes another agent.", field=("agent",))
        wanted = replace(wanted, **checked)
    if wanted != SILENT:
        await _put(work, target.organization_id, scope, wanted, None)


async def _above(work: Work, target: Target, scope: Scope) -> list[RuleValues]:
    """Load what the wider scopes of a rule say, the narrowest first."""
    wider = []
    if scope.kind is ScopeKind.KEY and target.team_id is not None:
        wider.append(Scope(ScopeKind.TEAM, target.team_id))
    if scope.kind is not ScopeKind.ORGANIZATION:
        wider.append(Scope(ScopeKind.ORGANIZATION, target.organization_id))
    rows = [await rule_of(work.session, target.organization_id, each) for each in wider]
    return [values_of(row) for row in rows]


async def _put(
    work: Work, organization_id: UUID, scope: Scope, values: RuleValues, row: Rule | None
) -> Rule:
    before = None if row is None else facts(row)
    if row is None:
        row = Rule(
            id=work.new_id(),
            organization_id=organization_id,
            scope_kind=scope.kind,
            scope_id=scope.id,
            created_at=work.now,
        )
        work.session.add(row)
    for name in NAMES:
        setattr(row, name, getattr(values, name))
    await work.session.flush()
    record(work, "rule.set", row, organization_id=organization_id, before=before, after=facts(row))
    return row
