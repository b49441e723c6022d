"""What limits of every kind need of the ledger; events, calibrations, offsets, rules.

Revision: 0003, after 0002; made 2026-11-28.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_JSON = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")
_LABELS = ("feature", "agent", "end_user", "session")


def upgrade() -> None:
    _widen_records()
    _widen_entries()
    _add_events()
    _add_calibrations()
    _add_breaker_offsets()
    _widen_rules()


def _widen_records() -> None:
    with op.batch_alter_table("decision_records", schema=None) as batch_op:
        batch_op.add_column(sa.Column("model", sa.String(), nullable=True))
        batch_op.add_column(sa.Column("tier", sa.String(), nullable=True))
        batch_op.add_column(sa.Column("bound_nanos", sa.BigInteger(), nullable=True))
        for name in ("calibration", "waited_ns", "extensions"):
            default = "1" if name == "calibration" else "0"
            batch_op.add_column(
                sa.Column(name, sa.BigInteger(), nullable=False, server_default=default)
            )
        batch_op.add_column(sa.Column("steps", _JSON, nullable=False, server_default="[]"))
        batch_op.add_column(sa.Column("cut_limit_id", sa.Uuid(), nullable=True))
        batch_op.add_column(sa.Column("pools", sa.String(), nullable=False, server_default=""))
        batch_op.add_column(
            sa.Column("assembled", sa.Boolean(), nullable=False, server_default=sa.false())
        )
    # So far the bound was what was held, and every model was served as it was asked for.
    op.execute(
        "UPDATE decision_records SET bound_nanos = held_nanos, "
        "model = CASE WHEN served_model IS NULL THEN NULL ELSE requested_model END"
    )
    with op.batch_alter_table("decision_records", schema=None) as batch_op:
        batch_op.alter_column("bound_nanos", existing_type=sa.BigInteger(), nullable=False)
        # What writes a row writes all of it: a default would only hide what was left out.
        for name in ("calibration", "waited_ns", "extensions"):
            batch_op.alter_column(name, existing_type=sa.BigInteger(), server_default=None)
        batch_op.alter_column("steps", existing_type=_JSON, server_default=None)
        batch_op.alter_column("pools", existing_type=sa.String(), server_default=None)
        batch_op.alter_column("assembled", existing_type=sa.Boolean(), server_default=None)


def _widen_entries() -> None:
    with op.batch_alter_table("ledger_entries", schema=None) as batch_op:
        batch_op.add_column(sa.Column("tier", sa.String(), nullable=True))
        batch_op.add_column(sa.Column("pools", sa.String(), nullable=False, server_default=""))
        for name in _LABELS:
            batch_op.add_column(sa.Column(name, sa.String(), nullable=True))
    # An entry has the id of its record. Its model was the provider's name.
    for name in ("model", *_LABELS):
        op.execute(
            f"UPDATE ledger_entries SET {name} = (SELECT r.{name} FROM decision_records r "  # noqa: S608
            "WHERE r.id = ledger_entries.id)"
        )
    with op.batch_alter_table("ledger_entries", schema=None) as batch_op:
        batch_op.alter_column("pools", existing_type=sa.String(), server_default=None)
        batch_op.create_index(
            "ix_ledger_entries_key", ["organization_id", "key_id", "admitted_at_ns"], unique=False
        )


def _add_events() -> None:
    op.create_table(
        "threshold_crossings",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("organization_id", sa.Uuid(), nullable=False),
        sa.Column("limit_id", sa.Uuid(), nullable=False),
        sa.Column("period_start_ns", sa.BigInteger(), nullable=False),
        sa.Column("percent", sa.Integer(), nullable=False),
        sa.Column("repeated_at_ns", sa.BigInteger(), nullable=False),
        sa.Column("settled", sa.BigInteger(), nullable=False),
        sa.Column("cap", sa.BigInteger(), nullable=False),
        sa.Column("at_ns", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_threshold_crossings")),
        sa.UniqueConstraint(
            "organization_id",
            "limit_id",
            "period_start_ns",
            "percent",
            "repeated_at_ns",
            name="uq_threshold_crossings_once",
        ),
    )
    op.create_table(
        "breaker_events",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("organization_id", sa.Uuid(), nullable=False),
        sa.Column("limit_id", sa.Uuid(), nullable=False),
        sa.Column("scope_kind", sa.String(length=20), nullable=False),
        sa.Column("scope_id", sa.Uuid(), nullable=False),
        sa.Column("is_open", sa.Boolean(), nullable=False),
        sa.Column("sum_nanos", sa.BigInteger(), nullable=False),
        sa.Column("cap_nanos", sa.BigInteger(), nullable=False),
        sa.Column("at_ns", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_breaker_events")),
    )
    for table in ("threshold_crossings", "breaker_events"):
        with op.batch_alter_table(table, schema=None) as batch_op:
            batch_op.create_index(
                batch_op.f(f"ix_{table}_organization_id_id"),
                ["organization_id", "id"],
                unique=False,
            )


def _add_calibrations() -> None:
    op.create_table(
        "calibrations",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("provider", sa.String(), nullable=False),
        sa.Column("model", sa.String(), nullable=False),
        sa.Column("ratio", sa.Integer(), nullable=False),
        sa.Column("raised_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("request_id", sa.Uuid(), nullable=True),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_calibrations")),
    )


def _add_breaker_offsets() -> None:
    op.create_table(
        "breaker_offsets",
        sa.Column("scope_kind", sa.String(length=20), nullable=False),
        sa.Column("scope_id", sa.Uuid(), nullable=False),
        sa.Column("minute_nanos", sa.BigInteger(), nullable=False),
        sa.Column("minute_until_ns", sa.BigInteger(), nullable=False),
        sa.Column("hour_nanos", sa.BigInteger(), nullable=False),
        sa.Column("hour_until_ns", sa.BigInteger(), nullable=False),
        sa.Column("reset_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("organization_id", sa.Uuid(), nullable=False),
        sa.ForeignKeyConstraint(
            ["organization_id"],
            ["organizations.id"],
            name=op.f("fk_breaker_offsets_organization_id_organizations"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_breaker_offsets")),
        sa.UniqueConstraint(
            "organization_id",
            "scope_kind",
            "scope_id",
            name=op.f("uq_breaker_offsets_organization_id_scope_kind_scope_id"),
        ),
    )


def _widen_rules() -> None:
    op.create_table(
        "rules",
        sa.Column("scope_kind", sa.String(length=20), nullable=False),
        sa.Column("scope_id", sa.Uuid(), nullable=False),
        sa.Column("models", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("tiers", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("providers", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("providers_blocked", sa.JSON(none_as_null=True), nullable=False),
        sa.Column("features_blocked", sa.JSON(none_as_null=True), nullable=False),
        sa.Column("classes_blocked", sa.JSON(none_as_null=True), nullable=False),
        sa.Column("endpoints_blocked", sa.JSON(none_as_null=True), nullable=False),
        sa.Column("tokens_per_request_max", sa.BigInteger(), nullable=True),
        sa.Column("retry_storm_max", sa.Integer(), nullable=True),
        sa.Column("output_tokens_default", sa.BigInteger(), nullable=True),
        sa.Column("hold_wait_s", sa.Integer(), nullable=True),
        sa.Column("on_cut", sa.Enum("partial", "error", name="oncut", native_enum=False, length=20), nullable=True),
        sa.Column("refusal_detail", sa.Enum("own", "all", "none", name="refusaldetail", native_enum=False, length=20), nullable=True),
        sa.Column("fixed", sa.JSON(none_as_null=True), nullable=False),
        sa.Column("required", sa.JSON(none_as_null=True), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("organization_id", sa.Uuid(), nullable=False),
        sa.ForeignKeyConstraint(
            ["organization_id"],
            ["organizations.id"],
            name=op.f("fk_rules_organization_id_organizations"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_rules")),
        sa.UniqueConstraint(
            "organization_id",
            "scope_kind",
            "scope_id",
            name=op.f("uq_rules_organization_id_scope_kind_scope_id"),
        ),
    )
    op.execute(
        "INSERT INTO rules (id, organization_id, scope_kind, scope_id, models, providers_blocked, "
        "features_blocked, classes_blocked, endpoints_blocked, fixed, required, created_at, "
        "version) SELECT id, organization_id, scope_kind, scope_id, allow, '[]', '[]', '[]', "
        "'[]', '{}', '[]', created_at, version FROM model_rules"
    )
    op.drop_table("model_rules")


def downgrade() -> None:
    op.create_table(
        "model_rules",
        sa.Column("scope_kind", sa.String(length=20), nullable=False),
        sa.Column("scope_id", sa.Uuid(), nullable=False),
        sa.Column("allow", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("organization_id", sa.Uuid(), nullable=False),
        sa.ForeignKeyConstraint(
            ["organization_id"],
            ["organizations.id"],
            name=op.f("fk_model_rules_organization_id_organizations"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_model_rules")),
        sa.UniqueConstraint(
            "organization_id",
            "scope_kind",
            "scope_id",
            name=op.f("uq_model_rules_organization_id_scope_kind_scope_id"),
        ),
    )
    op.execute(
        "INSERT INTO model_rules (id, organization_id, scope_kind, scope_id, allow, created_at, "
        "version) SELECT id, organization_id, scope_kind, scope_id, models, created_at, version "
        "FROM rules"
    )
    for table in (
        "rules",
        "breaker_offsets",
        "calibrations",
        "breaker_events",
        "threshold_crossings",
    ):
        op.drop_table(table)
    # The model of an entry was the provider's name.
    op.execute(
        "UPDATE ledger_entries SET model = (SELECT r.served_model FROM decision_records r "
        "WHERE r.id = ledger_entries.id)"
    )
    with op.batch_alter_table("ledger_entries", schema=None) as batch_op:
        batch_op.drop_index("ix_ledger_entries_key")
        for name in ("tier", "pools", *_LABELS):
            batch_op.drop_column(name)
    with op.batch_alter_table("decision_records", schema=None) as batch_op:
        for name in (
            "model",
            "tier",
            "bound_nanos",
            "calibration",
            "waited_ns",
            "extensions",
            "steps",
            "cut_limit_id",
            "pools",
            "assembled",
        ):
            batch_op.drop_column(name)
