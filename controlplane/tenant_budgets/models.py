"""The table of tenant budgets."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from uuid import UUID

from sqlalchemy import BigInteger, ForeignKey, String, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from controlplane.columns import choice, json_column
from controlplane.db import Versioned
from controlplane.scope import TenantRow

ACTION_LENGTH_MAX = 40
POLICY_LABEL_LENGTH_MAX = 100
MODEL_NAME_LENGTH_MAX = 200


class OverLimitAction(StrEnum):
    """What becomes of requests from the monthly budget on."""

    REJECT = "reject"
    DOWNGRADE = "downgrade"
    DOWNGRADE_THEN_FAIL_CLOSED = "downgrade_then_fail_closed"
    CONFIRM = "confirm"
    QUEUE = "queue"


class TenantBudget(Versioned, TenantRow):
    """The guardrails of an organization; amounts are nano units of its currency.

    An archived one is revived when the organization gets one again, so that versions never
    restart. One that the operator set is changed by the operator alone.
    """

    __tablename__ = "tenant_budgets"
    __table_args__ = (UniqueConstraint("organization_id"),)

    monthly_budget_nanos: Mapped[int] = mapped_column(BigInteger)
    hard_stop_nanos: Mapped[int | None] = mapped_column(BigInteger)
    daily_soft_limit_nanos: Mapped[int | None] = mapped_column(BigInteger)
    allowed_model_tiers: Mapped[list[str] | None] = mapped_column(json_column())
    blocked_features: Mapped[list[str]] = mapped_column(json_column())
    over_limit_action: Mapped[OverLimitAction] = mapped_column(
        choice(OverLimitAction, ACTION_LENGTH_MAX)
    )
    downgrade_model: Mapped[str | None] = mapped_column(String(MODEL_NAME_LENGTH_MAX))
    queue_timeout_s: Mapped[int | None]
    policy_label: Mapped[str] = mapped_column(String(POLICY_LABEL_LENGTH_MAX))
    is_operators: Mapped[bool]
    set_at: Mapped[datetime]
    archived_at: Mapped[datetime | None]
    set_by: Mapped[UUID | None] = mapped_column(ForeignKey("users.id"))
