"""Exchange rates, plans, prepaid balances and tenant budgets.

Revision: 0005, after 0002; made 2026-11-28.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "exchange_rates",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("currency", sa.String(length=3), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("picos", sa.BigInteger(), nullable=False),
        sa.Column("starts_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("entered_by", sa.Uuid(), nullable=True),
        sa.Column("entered_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["entered_by"], ["users.id"], name=op.f("fk_exchange_rates_entered_by_users")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_exchange_rates")),
        sa.UniqueConstraint(
            "currency", "version", name=op.f("uq_exchange_rates_currency_version")
        ),
    )
    op.create_table(
        "plans",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("markup_ppm", sa.BigInteger(), nullable=False),
        sa.Column("fees", sa.JSON(none_as_null=True), nullable=False),
        sa.Column("requests_per_month", sa.BigInteger(), nullable=True),
        sa.Column("requests_per_day", sa.BigInteger(), nullable=True),
        sa.Column("requests_per_minute", sa.BigInteger(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("archived_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_plans")),
        sa.UniqueConstraint("name", name=op.f("uq_plans_name")),
    )
    op.create_table(
        "wallets",
        sa.Column("opened_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("low_balance_threshold_nanos", sa.BigInteger(), nullable=True),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("organization_id", sa.Uuid(), nullable=False),
        sa.ForeignKeyConstraint(
            ["organization_id"],
            ["organizations.id"],
            name=op.f("fk_wallets_organization_id_organizations"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_wallets")),
        sa.UniqueConstraint("organization_id", name=op.f("uq_wallets_organization_id")),
    )
    op.create_table(
        "wallet_entries",
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("kind", sa.String(length=20), nullable=False),
        sa.Column("amount_nanos", sa.BigInteger(), nullable=False),
        sa.Column("balance_after_nanos", sa.BigInteger(), nullable=False),
        sa.Column("refunded_id", sa.Uuid(), nullable=True),
        sa.Column("reference", sa.String(length=200), nullable=True),
        sa.Column("note", sa.String(length=1000), nullable=True),
        sa.Column("actor_id", sa.Uuid(), nullable=True),
        sa.Column("idempotency_key", sa.String(length=255), nullable=True),
        sa.Column("at_ns", sa.BigInteger(), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("organization_id", sa.Uuid(), nullable=False),
        sa.ForeignKeyConstraint(
            ["actor_id"], ["users.id"], name=op.f("fk_wallet_entries_actor_id_users")
        ),
        sa.ForeignKeyConstraint(
            ["organization_id"],
            ["organizations.id"],
            name=op.f("fk_wallet_entries_organization_id_organizations"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_wallet_entries")),
        sa.UniqueConstraint(
            "organization_id", "refunded_id", name=op.f("uq_wallet_entries_organization_id_refunded_id")
        ),
        sa.UniqueConstraint(
            "organization_id", "seq", name=op.f("uq_wallet_entries_organization_id_seq")
        ),
    )
    op.create_table(
        "tenant_budgets",
        sa.Column("monthly_budget_nanos", sa.BigInteger(), nullable=False),
        sa.Column("hard_stop_nanos", sa.BigInteger(), nullable=True),
        sa.Column("daily_soft_limit_nanos", sa.BigInteger(), nullable=True),
        sa.Column("allowed_model_tiers", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("blocked_features", sa.JSON(none_as_null=True), nullable=False),
        sa.Column("over_limit_action", sa.String(length=40), nullable=False),
        sa.Column("downgrade_model", sa.String(length=200), nullable=True),
        sa.Column("queue_timeout_s", sa.Integer(), nullable=True),
        sa.Column("policy_label", sa.String(length=100), nullable=False),
        sa.Column("is_operators", sa.Boolean(), nullable=False),
        sa.Column("set_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("archived_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("set_by", sa.Uuid(), nullable=True),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("organization_id", sa.Uuid(), nullable=False),
        sa.ForeignKeyConstraint(
            ["organization_id"],
            ["organizations.id"],
            name=op.f("fk_tenant_budgets_organization_id_organizations"),
        ),
        sa.ForeignKeyConstraint(
            ["set_by"], ["users.id"], name=op.f("fk_tenant_budgets_set_by_users")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_tenant_budgets")),
        sa.UniqueConstraint("organization_id", name=op.f("uq_tenant_budgets_organization_id")),
    )
    op.create_index(
        "ix_wallet_entries_by_people",
        "wallet_entries",
        ["organization_id", "seq"],
        unique=False,
        sqlite_where=sa.text("kind <> 'usage'"),
        postgresql_where=sa.text("kind <> 'usage'"),
    )
    with op.batch_alter_table("organizations", schema=None) as batch_op:
        batch_op.add_column(sa.Column("plan_id", sa.Uuid(), nullable=True))
        batch_op.create_index(batch_op.f("ix_organizations_currency"), ["currency"], unique=False)
        batch_op.create_index(batch_op.f("ix_organizations_plan_id"), ["plan_id"], unique=False)
        batch_op.create_foreign_key(
            batch_op.f("fk_organizations_plan_id_plans"), "plans", ["plan_id"], ["id"]
        )


def downgrade() -> None:
    with op.batch_alter_table("organizations", schema=None) as batch_op:
        batch_op.drop_constraint(
            batch_op.f("fk_organizations_plan_id_plans"), type_="foreignkey"
        )
        batch_op.drop_index(batch_op.f("ix_organizations_plan_id"))
        batch_op.drop_index(batch_op.f("ix_organizations_currency"))
        batch_op.drop_column("plan_id")

    op.drop_table("tenant_budgets")
    op.drop_index("ix_wallet_entries_by_people", table_name="wallet_entries")
    op.drop_table("wallet_entries")
    op.drop_table("wallets")
    op.drop_table("plans")
    op.drop_table("exchange_rates")
