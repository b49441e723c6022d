"""The table of rules: what a request may be, whatever it costs."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from uuid import UUID

from sqlalchemy import BigInteger, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from controlplane.columns import choice, json_column
from controlplane.db import Versioned
from controlplane.limits.models import ScopeKind
from controlplane.scope import TenantRow


class OnCut(StrEnum):
    """What a caller who wants JSON gets of an answer that a limit has cut."""

    PARTIAL = "partial"
    ERROR = "error"


class RefusalDetail(StrEnum):
    """Of which limits a refusal shows the figures."""

    OWN = "own"
    ALL = "all"
    NONE = "none"


class Rule(Versioned, TenantRow):
    """What the requests of a scope may be; a key, its team and its organization have one each.

    Lists of what is allowed: null allows all, an empty list none. Of what holds once, null leaves
    it to the wider scopes. `fixed` gives a request labels that its caller cannot change.
    """

    __tablename__ = "rules"
    __table_args__ = (UniqueConstraint("organization_id", "scope_kind", "scope_id"),)

    scope_kind: Mapped[ScopeKind] = mapped_column(choice(ScopeKind))
    scope_id: Mapped[UUID]
    models: Mapped[list[str] | None] = mapped_column(json_column())
    tiers: Mapped[list[str] | None] = mapped_column(json_column())
    providers: Mapped[list[str] | None] = mapped_column(json_column())
    providers_blocked: Mapped[list[str]] = mapped_column(json_column())
    features_blocked: Mapped[list[str]] = mapped_column(json_column())
    classes_blocked: Mapped[list[str]] = mapped_column(json_column())
    endpoints_blocked: Mapped[list[str]] = mapped_column(json_column())
    tokens_per_request_max: Mapped[int | None] = mapped_column(BigInteger)
    retry_storm_max: Mapped[int | None]
    output_tokens_default: Mapped[int | None] = mapped_column(BigInteger)
    hold_wait_s: Mapped[int | None]
    on_cut: Mapped[OnCut | None] = mapped_column(choice(OnCut))
    refusal_detail: Mapped[RefusalDetail | None] = mapped_column(choice(RefusalDetail))
    fixed: Mapped[dict[str, str]] = mapped_column(json_column())
    required: Mapped[list[str]] = mapped_column(json_column())
    created_at: Mapped[datetime]
