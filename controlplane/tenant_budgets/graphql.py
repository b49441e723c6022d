"""Tenant budgets in the API."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

import strawberry

from controlplane.api.faults import UserError, attempt
from controlplane.api.fields import enumeration, mutation, resolved
from controlplane.api.nodes import Node, NodeKind, expect, global_id
from controlplane.api.request import Info
from controlplane.api.scalars import Money
from controlplane.authz import Action, Target, may
from controlplane.context import Work
from controlplane.tenant_budgets import models, service
from controlplane.tenant_budgets.models import OverLimitAction
from controlplane.tenant_budgets.service import Guardrails
from controlplane.wallets.graphql import balance_state, load_wallet

enumeration(
    OverLimitAction,
    "OverLimitAction",
    "What becomes of requests from the monthly budget on.",
    {
        OverLimitAction.REJECT: "They are refused.",
        OverLimitAction.DOWNGRADE: "The cheaper model serves them, however much is spent; there is "
        "no hard stop.",
        OverLimitAction.DOWNGRADE_THEN_FAIL_CLOSED: "The cheaper model serves them until the hard "
        "stop, where all are refused.",
        OverLimitAction.CONFIRM: "They pass when they are confirmed, until the hard stop, where "
        "all are refused.",
        OverLimitAction.QUEUE: "They wait in the open connection for room, then are refused.",
    },
)


@strawberry.type(description="The guardrails of an organization, set as one object.")
class TenantBudget(Node):
    """The guardrails of an organization."""

    monthly_budget: Money = strawberry.field(
        description="Spend in a month of the organization's time zone, from which on "
        "`overLimitAction` applies."
    )
    hard_stop: Money | None = strawberry.field(
        description="Spend in a month that is never passed; null: no other than the action says."
    )
    daily_soft_limit: Money | None = strawberry.field(
        description="Spend in a day that is told about and never refused; null: none."
    )
    allowed_model_tiers: list[str] | None = strawberry.field(
        description="Tiers whose models may be used, beside what model rules allow; null: all."
    )
    blocked_features: list[str] = strawberry.field(
        description="Features whose requests are refused, beside those of model rules."
    )
    over_limit_action: OverLimitAction = strawberry.field(
        description="What becomes of requests from the monthly budget on."
    )
    downgrade_model: str | None = strawberry.field(
        description="The cheaper model, for the two downgrades."
    )
    queue_timeout_seconds: int | None = strawberry.field(
        description="How long requests wait, for `QUEUE`."
    )
    policy_version: str = strawberry.field(description="What you call this version of it.")
    is_operators: bool = strawberry.field(
        description="Whether the operator set it, so that only the operator can change it."
    )
    set_at: datetime = strawberry.field(description="When it was set last.")
    version: int = strawberry.field(description="Counts changes; see `expectedVersion`.")
    row: strawberry.Private[models.TenantBudget]

    @resolved("What is left of the prepaid balance; null when there is no wallet you may see.")
    async def prepaid_balance(self, info: Info) -> Money | None:
        """Read the balance of the wallet."""
        wallet = await load_wallet(info, self.row.organization_id)
        return None if wallet is None else wallet.balance


@strawberry.input(description="All that a tenant budget shall be.")
class TenantBudgetSetInput:
    """All that a tenant budget shall be."""

    organization_id: strawberry.ID = strawberry.field(description="Whose it shall be.")
    monthly_budget: Money = strawberry.field(description="As in `TenantBudget`.")
    hard_stop: Money | None = strawberry.field(
        default=None,
        description="Not below the monthly budget; needed by `DOWNGRADE_THEN_FAIL_CLOSED`, and "
        "must be null with `DOWNGRADE`.",
    )
    daily_soft_limit: Money | None = strawberry.field(
        default=None, description="As in `TenantBudget`."
    )
    prepaid_balance: Money | None = strawberry.field(
        default=None,
        description="The balance there shall be now: opens a wallet if there is none, and corrects "
        "it. Null leaves it as it is. For the operator.",
    )
    allowed_model_tiers: list[str] | None = strawberry.field(
        default=None, description="At most 100 tiers; null: all, an empty list: none."
    )
    blocked_features: list[str] = strawberry.field(
        default_factory=list, description="At most 100 features."
    )
    over_limit_action: OverLimitAction = strawberry.field(
        default=OverLimitAction.REJECT,
        description="What becomes of requests from the monthly budget on.",
    )
    downgrade_model: str | None = strawberry.field(
        default=None, description="The cheaper model; needed by the two downgrades alone."
    )
    queue_timeout_seconds: int | None = strawberry.field(
        default=None, description="1 to 300; needed by `QUEUE` alone."
    )
    policy_version: str = strawberry.field(
        description="What you call this version of it, up to 100 characters."
    )
    expected_version: int | None = strawberry.field(
        default=None, description="The version you have seen; null where there was none."
    )
    idempotency_key: str | None = strawberry.field(
        default=None,
        description="A retry with the same value changes nothing again; needed with "
        "`prepaidBalance`.",
    )

    def guardrails(self) -> Guardrails:
        """Read what it shall be."""
        tiers = self.allowed_model_tiers
        return Guardrails(
            monthly_budget_nanos=self.monthly_budget,
            hard_stop_nanos=self.hard_stop,
            daily_soft_limit_nanos=self.daily_soft_limit,
            prepaid_balance_nanos=self.prepaid_balance,
            allowed_model_tiers=None if tiers is None else tuple(tiers),
            blocked_features=tuple(self.blocked_features),
            over_limit_action=self.over_limit_action,
            downgrade_model=self.downgrade_model,
            queue_timeout_s=self.queue_timeout_seconds,
            policy_label=self.policy_version,
        )


@strawberry.input(description="A tenant budget to lift.")
class TenantBudgetRemoveInput:
    """A tenant budget to lift."""

    organization_id: strawberry.ID = strawberry.field(description="Whose it is.")
    expected_version: int = strawberry.field(description="The version you have seen.")


@strawberry.type(description="The tenant budget, or why nothing was changed.")
class TenantBudgetPayload:
    """The tenant budget, or why nothing was changed."""

    tenant_budget: TenantBudget | None = strawberry.field(
        description="The tenant budget, also one that was lifted; null when there are errors."
    )
    errors: list[UserError] = strawberry.field(description="What you can mend.")


def tenant_budget_of(row: models.TenantBudget) -> TenantBudget:
    """Show a tenant budget."""
    return TenantBudget(
        id=global_id(NodeKind.TENANT_BUDGET, row.organization_id, row.id),
        monthly_budget=Money(row.monthly_budget_nanos),
        hard_stop=_optional(row.hard_stop_nanos),
        daily_soft_limit=_optional(row.daily_soft_limit_nanos),
        allowed_model_tiers=row.allowed_model_tiers,
        blocked_features=row.blocked_features,
        over_limit_action=row.over_limit_action,
        downgrade_model=row.downgrade_model,
        queue_timeout_seconds=row.queue_timeout_s,
        policy_version=row.policy_label,
        is_operators=row.is_operators,
        set_at=row.set_at,
        version=row.version,
        row=row,
    )


async def load_tenant_budget(info: Info, organization_id: UUID) -> TenantBudget | None:
    """Load the tenant budget in force; null when there is none the caller may see."""
    if not may(info.context.caller, Action.BILLING_READ, Target(organization_id)):
        return None
    row = await info.context.loaders.tenant_budgets.load(organization_id)
    return None if row is None else tenant_budget_of(row)


@strawberry.type
class TenantBudgetMutation:
    """Changes to tenant budgets."""

    @mutation("Set all of a tenant budget, or nothing of it. For admins and the operator.")
    async def tenant_budget_set(
        self,
        info: Info,
        input: TenantBudgetSetInput,  # noqa: A002
    ) -> TenantBudgetPayload:
        """Set a tenant budget."""

        async def change(work: Work) -> models.TenantBudget:
            place = expect(input.organization_id, NodeKind.ORGANIZATION, "organization")
            state = balance_state(info, place.id)
            return await service.set_tenant_budget(
                work,
                place.id,
                input.guardrails(),
                expected_version=input.expected_version,
                idempotency_key=input.idempotency_key,
                in_use_nanos=0 if state is None else state.settled + state.held,
            )

        return _payload(*await attempt(info, change))

    @mutation("Lift a tenant budget; the wallet stays. For admins and the operator.")
    async def tenant_budget_remove(
        self,
        info: Info,
        input: TenantBudgetRemoveInput,  # noqa: A002
    ) -> TenantBudgetPayload:
        """Lift a tenant budget."""

        async def change(work: Work) -> models.TenantBudget:
            place = expect(input.organization_id, NodeKind.ORGANIZATION, "organization")
            return await service.remove_tenant_budget(
                work, place.id, expected_version=input.expected_version
            )

        return _payload(*await attempt(info, change))


def _optional(nanos: int | None) -> Money | None:
    return None if nanos is None else Money(nanos)


def _payload(row: models.TenantBudget | None, errors: list[UserError]) -> TenantBudgetPayload:
    return TenantBudgetPayload(
        tenant_budget=None if row is None else tenant_budget_of(row), errors=errors
    )
