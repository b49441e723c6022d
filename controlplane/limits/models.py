"""The tables of limits: (scope, where, resource, window, cap, mode, hold, steps)."""

from __future__ import annotations

from datetime import date, datetime
from enum import StrEnum
from uuid import UUID

from sqlalchemy import BigInteger, Date, Index, String, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from controlplane.columns import Json, choice, json_column
from controlplane.db import Row, Versioned
from controlplane.scope import TenantRow

CAP_MAX = 2**63 - 1
LABEL_LENGTH_MAX = 200


class LimitKind(StrEnum):
    """What a limit is called in front of people and in refusals."""

    BUDGET = "budget"
    BREAKER = "breaker"
    RATE = "rate"
    QUOTA = "quota"
    BALANCE = "balance"
    CONCURRENCY = "concurrency"


class ScopeKind(StrEnum):
    """Whose use a limit counts; from `feature` on these are labels, not rows of their own."""

    ORGANIZATION = "organization"
    TEAM = "team"
    MEMBER = "member"
    MEMBER_IN_TEAM = "member_in_team"
    KEY = "key"
    POOL = "pool"
    FEATURE = "feature"
    AGENT = "agent"
    END_USER = "end_user"
    SESSION = "session"
    PROVIDER = "provider"
    INSTALLATION = "installation"


# What callers name in headers; a limit may be about one such label, or about each.
LABEL_KINDS = frozenset({ScopeKind.FEATURE, ScopeKind.AGENT, ScopeKind.END_USER, ScopeKind.SESSION})
# Beyond organizations: the operator's.
INSTALLATION_KINDS = frozenset({ScopeKind.PROVIDER, ScopeKind.INSTALLATION})


class Resource(StrEnum):
    """What is counted: nano units of money, requests, tokens, or requests under way."""

    SPEND = "spend"
    REQUESTS = "requests"
    TOKENS = "tokens"
    CONCURRENCY = "concurrency"


class WindowKind(StrEnum):
    """Whether a window moves with time, starts anew at boundaries, or is this moment."""

    ROLLING = "rolling"
    CALENDAR = "calendar"
    DAYS = "days"
    LIFETIME = "lifetime"
    NOW = "now"


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

    EXPECTED = "expected"
    BOUND = "bound"


class LimitFields(Versioned):
    """The columns of a limit. `slot` spells where, resource and window.

    `label` names what has no row of its own, or the member and team of a member in a team; with
    neither, such a scope stands for each label. `window_*` are those that the window's kind has.
    `next_window`, in the form of the snapshot, replaces the window from `next_from` on.
    """

    kind: Mapped[LimitKind] = mapped_column(choice(LimitKind))
    scope_kind: Mapped[ScopeKind] = mapped_column(choice(ScopeKind))
    scope_id: Mapped[UUID]
    label: Mapped[str | None] = mapped_column(String(LABEL_LENGTH_MAX))
    slot: Mapped[str] = mapped_column(String(120))
    where: Mapped[dict[str, list[str]] | None] = mapped_column(json_column())
    resource: Mapped[Resource] = mapped_column(choice(Resource))
    window_kind: Mapped[WindowKind] = mapped_column(choice(WindowKind))
    window_seconds: Mapped[int | None]
    window_period: Mapped[Period | None] = mapped_column(choice(Period))
    window_days: Mapped[int | None]
    window_anchor: Mapped[date | None] = mapped_column(Date)
    window_starts_at: Mapped[datetime | None]
    window_time_zone: Mapped[str | None] = mapped_column(String(64))
    next_window: Mapped[Json | None] = mapped_column(json_column())
    next_from: Mapped[datetime | None]
    cap: Mapped[int] = mapped_column(BigInteger)
    mode: Mapped[Mode] = mapped_column(choice(Mode))
    hold: Mapped[Hold] = mapped_column(choice(Hold))
    steps: Mapped[list[Json] | None] = mapped_column(json_column())
    cooldown_s: Mapped[int | None]
    created_at: Mapped[datetime]
    archived_at: Mapped[datetime | None]


class Limit(LimitFields, TenantRow):
    """A limit of an organization: a scope has one of a kind in each slot.

    An archived row is revived when its slot is filled again, so that versions never restart.
    `pair_id` names the two rates that people set together.
    """

    __tablename__ = "limits"
    __table_args__ = (
        UniqueConstraint("organization_id", "scope_kind", "scope_id", "kind", "slot"),
        Index(None, "organization_id", "pair_id"),
    )

    pair_id: Mapped[UUID | None]


class InstallationLimit(LimitFields, Row):
    """A limit of the installation or of a provider, across all organizations.

    It counts cost in the currency of the price sheet, since organizations have several.
    """

    __tablename__ = "installation_limits"
    __table_args__ = (UniqueConstraint("scope_kind", "scope_id", "kind", "slot"),)

    id: Mapped[UUID] = mapped_column(primary_key=True)
