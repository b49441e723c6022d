"""The one table of limits: (scope, where, resource, window, cap, mode, hold)."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from uuid import UUID

from sqlalchemy import BigInteger, String, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from controlplane.columns import choice, json_column
from controlplane.db import Versioned
from controlplane.scope import TenantRow

CAP_MAX = 2**63 - 1


class LimitKind(StrEnum):
    """What a limit is called in front of people and in refusals."""

    BUDGET = "budget"
    BREAKER = "breaker"
    RATE = "rate"
    QUOTA = "quota"


class ScopeKind(StrEnum):
    """Whose use a limit counts."""

    ORGANIZATION = "organization"
    TEAM = "team"
    MEMBER = "member"
    KEY = "key"


class Resource(StrEnum):
    """What is counted: nano units of money, requests, or tokens."""

    SPEND = "spend"
    REQUESTS = "requests"
    TOKENS = "tokens"


class WindowKind(StrEnum):
    """Whether a window moves with time or starts anew at calendar boundaries."""

    ROLLING = "rolling"
    CALENDAR = "calendar"


class Period(StrEnum):
    """A calendar period; weeks start on Monday."""

    DAY = "day"
    WEEK = "week"
    MONTH = "month"


class Mode(StrEnum):
    """How a limit acts once its cap is reached."""

    HARD = "hard"
    METERED = "metered"
    SOFT = "soft"
    SHADOW = "shadow"


class Hold(StrEnum):
    """Which amount of an open request a limit holds."""

    BOUND = "bound"


class Limit(Versioned, TenantRow):
    """One limit. `slot` spells where, resource and window: a scope has one limit of a kind in it.

    An archived row is revived when its slot is filled again, so that versions never restart.
    """

    __tablename__ = "limits"
    __table_args__ = (
        UniqueConstraint("organization_id", "scope_kind", "scope_id", "kind", "slot"),
    )

    kind: Mapped[LimitKind] = mapped_column(choice(LimitKind))
    scope_kind: Mapped[ScopeKind] = mapped_column(choice(ScopeKind))
    scope_id: Mapped[UUID]
    slot: Mapped[str] = mapped_column(String(120))
    where: Mapped[dict[str, list[str]] | None] = mapped_column(json_column())
    resource: Mapped[Resource] = mapped_column(choice(Resource))
    window_kind: Mapped[WindowKind] = mapped_column(choice(WindowKind))
    window_seconds: Mapped[int | None]
    window_period: Mapped[Period | None] = mapped_column(choice(Period))
    window_time_zone: Mapped[str | None] = mapped_column(String(64))
    cap: Mapped[int] = mapped_column(BigInteger)
    mode: Mapped[Mode] = mapped_column(choice(Mode))
    hold: Mapped[Hold] = mapped_column(choice(Hold))
    created_at: Mapped[datetime]
    archived_at: Mapped[datetime | None]
