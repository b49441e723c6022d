"""Changes to model rules."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from controlplane.audit.service import facts, record
from controlplane.authz import Action, Reach, require
from controlplane.context import Work
from controlplane.errors import InvalidInput, NotPermitted
from controlplane.inputs import checked_text
from controlplane.limits.models import ScopeKind
from controlplane.limits.subjects import Scope, target_of_scope
from controlplane.policies.models import Rule as ModelRule
from controlplane.policies.queries import rule_of
from controlplane.scope import subject_of
from controlplane.tenancy.service import policy_changed
from controlplane.versions import check_version

MODELS_MAX = 1_000
# As long as a name the engine reads (`NAME_BYTES_MAX`): it would refuse the whole policy.
MODEL_NAME_BYTES_MAX = 200


async def set_model_rule(
    work: Work,
    organization_id: UUID,
    scope: Scope,
    *,
    allow: Sequence[str] | None,
    expected_version: int | None = None,
) -> ModelRule:
    """Set the models that an organization, a team or a key may use; None allows all.

    The lists of a key, its team and its organization must all allow a model, so that a rule below
    can only narrow. A team's admin can only narrow what is set already.

    Raises `InvalidInput`, `StaleVersion`, `NotFound`, `NotPermitted`.
    """
    if scope.kind is ScopeKind.MEMBER:
        raise InvalidInput(
            "A model rule is an organization's, a team's or a key's.", field=("scope",)
        )
    target = await target_of_scope(work.session, organization_id, scope)
    require(work.caller, Action.MODELS_WRITE, target, scope.kind.value)
    models = None if allow is None else _checked_models(allow)
    known = await rule_of(work.session, organization_id, scope)
    is_lifted = known is not None and known.allow is None
    if known is None or (is_lifted and expected_version is None):
        # A lifted rule is shown to nobody, and so its version is not known.
        check_version(None, expected_version, None)
    else:
        check_version(known.version, expected_version, subject_of(known))
    if work.caller.reach(Action.MODELS_WRITE, organization_id) is not Reach.ORGANIZATION:
        _refuse_widening(known, models)
    row = await _put(work, organization_id, scope, models, known)
    await policy_changed(work, organization_id)
    return row


async def set_new_key_models(
    work: Work, organization_id: UUID, key_id: UUID, allow: Sequence[str]
) -> None:
    """Give a key that is just being created its models: who may create it may narrow it.

    Raises `InvalidInput`.
    """
    scope = Scope(ScopeKind.KEY, key_id)
    await _put(work, organization_id, scope, _checked_models(allow, "allowedModels"), None)


async def _put(
    work: Work,
    organization_id: UUID,
    scope: Scope,
    models: list[str] | None,
    row: ModelRule | None,
) -> ModelRule:
    before = None if row is None else facts(row)
    if row is None:
        row = ModelRule(
            id=work.new_id(),
            organization_id=organization_id,
            scope_kind=scope.kind,
            scope_id=scope.id,
            created_at=work.now,
        )
        work.session.add(row)
    row.allow = models
    await work.session.flush()
    record(
        work,
        "model_rule.set",
        row,
        organization_id=organization_id,
        before=before,
        after=facts(row),
    )
    return row


def _refuse_widening(known: ModelRule | None, models: list[str] | None) -> None:
    if known is None or known.allow is None:
        return
    if models is None or not set(models) <= set(known.allow):
        raise NotPermitted("Your role can only narrow the allowed models.")


def _checked_models(allow: Sequence[str], field: str = "allow") -> list[str]:
    if len(allow) > MODELS_MAX:
        raise InvalidInput(f"At most {MODELS_MAX} models.", field=(field,))
    return sorted({_checked_model(each, field) for each in allow})


def _checked_model(name: str, field: str) -> str:
    checked = checked_text(name, field, MODEL_NAME_BYTES_MAX)
    if len(checked.encode()) > MODEL_NAME_BYTES_MAX:
        raise InvalidInput(f"A name has at most {MODEL_NAME_BYTES_MAX} bytes.", field=(field,))
    return checked
