"""Tables of what was decided and what was booked.

Rows are only ever added. They carry no foreign keys: a record outlives the key and the team it
names, and each check would be paid on every request. The recorder writes them without the ORM,
every column of them; the classes serve migrations and queries.
"""

from __future__ import annotations

from typing import Annotated, Any
from uuid import UUID

from sqlalchemy import JSON, BigInteger, Index, UniqueConstraint
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from controlplane.columns import choice
from controlplane.db import Row
from controlplane.limits.models import ScopeKind

# Whole numbers are 64 bits everywhere: money, tokens and nanoseconds all pass 2^31.
Wide = Annotated[int, mapped_column(BigInteger())]
_JSON = JSON().with_variant(JSONB(), "postgresql")


class DecisionRow(Row):
    """One request, allowed, refused or failed; fields as in `records.DecisionRecord`."""

    __tablename__ = "decision_records"
    # Pages of requests are read by organization, newest first (either database reads it backwards).
    __table_args__ = (
        Index("ix_decision_records_page", "organization_id", "admitted_at_ns", "id"),
        Index("ix_decision_records_key", "organization_id", "key_id", "admitted_at_ns", "id"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)

    organization_id: Mapped[UUID]
    team_id: Mapped[UUID | None]
    member_id: Mapped[UUID | None]
    key_id: Mapped[UUID]
    cost_center_id: Mapped[UUID | None]
    end_user: Mapped[str | None]
    agent: Mapped[str | None]
    session: Mapped[str | None]

    intent: Mapped[str | None]
    feature: Mapped[str | None]
    route: Mapped[str]
    environment: Mapped[str | None]
    request_class: Mapped[str | None]
    tags: Mapped[dict[str, str]] = mapped_column(_JSON)

    requested_model: Mapped[str | None]
    model: Mapped[str | None]
    served_model: Mapped[str | None]
    provider: Mapped[str | None]
    tier: Mapped[str | None]
    fallback_reason: Mapped[str | None]
    policy_version: Mapped[str]

    input_tokens: Mapped[Wide]
    output_tokens: Mapped[Wide]
    cached_tokens: Mapped[Wide]
    cache_write_tokens: Mapped[Wide]
    reasoning_tokens: Mapped[Wide]
    held_nanos: Mapped[Wide]
    bound_nanos: Mapped[Wide] = mapped_column(default=0)
    calibration: Mapped[Wide] = mapped_column(default=1)
    cost_nanos: Mapped[Wide]
    charge_nanos: Mapped[Wide]
    currency: Mapped[str]
    invoice_period: Mapped[str]
    price_version: Mapped[str | None]
    usage_source: Mapped[str]

    decision: Mapped[str]
    code: Mapped[str | None]
    limit_id: Mapped[UUID | None]
    limit_scope: Mapped[str | None]
    remaining_nanos: Mapped[Wide | None]
    rate_limit_bucket: Mapped[str | None]
    over_limit_action: Mapped[str | None]
    steps: Mapped[list[dict[str, Any]]] = mapped_column(_JSON, default=list)
    waited_ns: Mapped[Wide] = mapped_column(default=0)
    extensions: Mapped[Wide] = mapped_column(default=0)
    cut_limit_id: Mapped[UUID | None]
    pools: Mapped[str] = mapped_column(default="")
    http_status: Mapped[Wide]

    admitted_at_ns: Mapped[Wide]
    first_byte_at_ns: Mapped[Wide | None]
    finished_at_ns: Mapped[Wide]
    latency_ns: Mapped[Wide]
    streamed: Mapped[bool]
    assembled: Mapped[bool] = mapped_column(default=False)
    upstream_status: Mapped[Wide | None]
    client_disconnected: Mapped[bool]
    output_cap: Mapped[Wide | None]
    engine_version: Mapped[str]
    seen: Mapped[str]
    error_code: Mapped[str | None]


class LedgerEntryRow(Row):
    """Money and tokens booked for one request; balances are sums of these rows.

    `model` is the name callers use for what served; `pools` are hex ids, joined by commas.
    """

    __tablename__ = "ledger_entries"
    __table_args__ = (
        # Calendar counters: what was admitted in a period. Rolling ones: what was settled lately.
        Index("ix_ledger_entries_admitted", "organization_id", "admitted_at_ns"),
        Index("ix_ledger_entries_settled", "organization_id", "settled_at_ns"),
        # A key's whole life is read without that of all others.
        Index("ix_ledger_entries_key", "organization_id", "key_id", "admitted_at_ns"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)
    organization_id: Mapped[UUID]
    team_id: Mapped[UUID | None]
    member_id: Mapped[UUID | None]
    key_id: Mapped[UUID]
    model: Mapped[str | None]
    provider: Mapped[str | None]
    tier: Mapped[str | None]
    pools: Mapped[str] = mapped_column(default="")
    feature: Mapped[str | None]
    agent: Mapped[str | None]
    end_user: Mapped[str | None]
    session: Mapped[str | None]
    admitted_at_ns: Mapped[Wide]
    settled_at_ns: Mapped[Wide]
    cost_nanos: Mapped[Wide]
    charge_nanos: Mapped[Wide]
    input_tokens: Mapped[Wide]
    output_tokens: Mapped[Wide]
    requests: Mapped[Wide]
    usage_source: Mapped[str]
    overrun_nanos: Mapped[Wide]


class ThresholdCrossingRow(Row):
    """A limit's settled sum reached a percentage of its cap: once in a period, or again.

    `repeated_at_ns` is 0 the first time, else when it was told again that a soft limit is passed.

    `settled` and `cap` are in the limit's unit, nano units for money.
    """

    __tablename__ = "threshold_crossings"
    __table_args__ = (
        UniqueConstraint(
            "organization_id",
            "limit_id",
            "period_start_ns",
            "percent",
            "repeated_at_ns",
            name="uq_threshold_crossings_once",
        ),
        Index(None, "organization_id", "id"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)
    organization_id: Mapped[UUID]
    limit_id: Mapped[UUID]
    period_start_ns: Mapped[Wide]
    percent: Mapped[int]
    repeated_at_ns: Mapped[Wide] = mapped_column(BigInteger(), default=0)
    settled: Mapped[Wide]
    cap: Mapped[Wide]
    at_ns: Mapped[Wide]


class BreakerEventRow(Row):
    """One window of a breaker opened or closed."""

    __tablename__ = "breaker_events"
    __table_args__ = (Index(None, "organization_id", "id"),)

    id: Mapped[UUID] = mapped_column(primary_key=True)
    organization_id: Mapped[UUID]
    limit_id: Mapped[UUID]
    scope_kind: Mapped[ScopeKind] = mapped_column(choice(ScopeKind))
    scope_id: Mapped[UUID]
    is_open: Mapped[bool]
    sum_nanos: Mapped[Wide]
    cap_nanos: Mapped[Wide]
    at_ns: Mapped[Wide]
