"""Model rules in the API."""

from __future__ import annotations

from uuid import UUID

import strawberry

from controlplane.api.faults import UserError, attempt
from controlplane.api.fields import mutation
from controlplane.api.nodes import Node, NodeKind, global_id
from controlplane.api.request import Info
from controlplane.api.scopes import ScopeInput, SpendScope, scope_of
from controlplane.context import Work
from controlplane.limits.subjects import Scope
from controlplane.policies import models, service


@strawberry.type(
    description="The models a scope may use; a key, its team and its organization must all allow."
)
class ModelRule(Node):
    """The models a scope may use."""

    scope: SpendScope = strawberry.field(description="Whose requests it is about.")
    allow: list[str] | None = strawberry.field(
        description="Names of models; null allows all, an empty list none."
    )
    version: int = strawberry.field(description="Counts changes; see `expectedVersion`.")


@strawberry.input(description="The models a scope may use.")
class ModelRuleSetInput:
    """The models a scope may use."""

    scope: ScopeInput = strawberry.field(description="An organization, a team or a key.")
    allow: list[str] | None = strawberry.field(
        default=None, description="At most 1000 names; null allows all, an empty list none."
    )
    expected_version: int | None = strawberry.field(
        default=None, description="The version you have seen; null where there was no rule."
    )


@strawberry.type(description="The rule, or why nothing was changed.")
class ModelRulePayload:
    """The rule, or why nothing was changed."""

    model_rule: ModelRule | None = strawberry.field(description="The rule; null when errors.")
    errors: list[UserError] = strawberry.field(description="What you can mend.")


def model_rule_of(row: models.ModelRule) -> ModelRule:
    """Show a model rule."""
    return ModelRule(
        id=global_id(NodeKind.MODEL_RULE, row.organization_id, row.id),
        scope=scope_of(row.organization_id, Scope(row.scope_kind, row.scope_id)),
        allow=row.allow,
        version=row.version,
    )


async def load_model_rule(info: Info, organization_id: UUID, scope: Scope) -> ModelRule | None:
    """Load the rule that a scope has itself, if it has one in force."""
    row = await info.context.rules.load((organization_id, scope))
    return None if row is None or row.allow is None else model_rule_of(row)


@strawberry.type
class PolicyMutation:
    """Changes to policy."""

    @mutation("Set the models a scope may use.")
    async def model_rule_set(self, info: Info, input: ModelRuleSetInput) -> ModelRulePayload:  # noqa: A002
        """Set the models a scope may use."""

        async def change(work: Work) -> models.ModelRule:
            organization_id, scope = input.scope.located()
            return await service.set_model_rule(
                work,
                organization_id,
                scope,
                allow=input.allow,
                expected_version=input.expected_version,
            )

        row, errors = await attempt(info, change)
        return ModelRulePayload(
            model_rule=None if row is None else model_rule_of(row), errors=errors
        )
