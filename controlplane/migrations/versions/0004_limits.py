"""Limits of all kinds: scopes, windows, steps, holds; pools; strict teams.

Revision: 0004, after 0003; made 2026-12-05.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_LIMIT_KINDS = ("budget", "breaker", "rate", "quota", "balance", "concurrency")
_SCOPE_KINDS = (
    "organization",
    "team",
    "member",
    "member_in_team",
    "key",
    "pool",
    "feature",
    "agent",
    "end_user",
    "session",
    "provider",
    "installation",
)
_RESOURCES = ("spend", "requests", "tokens", "concurrency")
_WINDOW_KINDS = ("rolling", "calendar", "days", "lifetime", "now")
_PERIODS = ("day", "week", "month")
_MODES = ("hard", "metered", "soft", "shadow")
_HOLDS = ("expected", "bound")


def _choice(name: str, values: tuple[str, ...]) -> sa.Enum:
    return sa.Enum(*values, name=name, native_enum=False, length=20)


def _new_columns() -> list[sa.Column[object]]:
    return [
        sa.Column("label", sa.String(length=200), nullable=True),
        sa.Column("window_days", sa.Integer(), nullable=True),
        sa.Column("window_anchor", sa.Date(), nullable=True),
        sa.Column("window_starts_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("next_window", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("next_from", sa.DateTime(timezone=True), nullable=True),
        sa.Column("steps", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("cooldown_s", sa.Integer(), nullable=True),
    ]


def upgrade() -> None:
    op.create_table(
        "pools",
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("archived_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("organization_id", sa.Uuid(), nullable=False),
        sa.ForeignKeyConstraint(
            ["organization_id"],
            ["organizations.id"],
            name=op.f("fk_pools_organization_id_organizations"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_pools")),
        sa.UniqueConstraint("organization_id", "id", name=op.f("uq_pools_organization_id_id")),
        sa.UniqueConstraint("organization_id", "name", name=op.f("uq_pools_organization_id_name")),
    )
    op.create_table(
        "installation_limits",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("kind", _choice("limitkind", _LIMIT_KINDS), nullable=False),
        sa.Column("scope_kind", _choice("scopekind", _SCOPE_KINDS), nullable=False),
        sa.Column("scope_id", sa.Uuid(), nullable=False),
        sa.Column("slot", sa.String(length=120), nullable=False),
        sa.Column("where", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("resource", _choice("resource", _RESOURCES), nullable=False),
        sa.Column("window_kind", _choice("windowkind", _WINDOW_KINDS), nullable=False),
        sa.Column("window_seconds", sa.Integer(), nullable=True),
        sa.Column("window_period", _choice("period", _PERIODS), nullable=True),
        sa.Column("window_time_zone", sa.String(length=64), nullable=True),
        sa.Column("cap", sa.BigInteger(), nullable=False),
        sa.Column("mode", _choice("mode", _MODES), nullable=False),
        sa.Column("hold", _choice("hold", _HOLDS), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("archived_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("version", sa.Integer(), nullable=False),
        *_new_columns(),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_installation_limits")),
        sa.UniqueConstraint(
            "scope_kind",
            "scope_id",
            "kind",
            "slot",
            name=op.f("uq_installation_limits_scope_kind_scope_id_kind_slot"),
        ),
    )
    with op.batch_alter_table("limits", schema=None) as batch_op:
        for column in _new_columns():
            batch_op.add_column(column)
        batch_op.add_column(sa.Column("pair_id", sa.Uuid(), nullable=True))
        batch_op.create_index(
            batch_op.f("ix_limits_organization_id_pair_id"), ["organization_id", "pair_id"]
        )
    # What a budget held so far was the bound; rates of a key are named after it.
    op.execute("UPDATE limits SET hold = 'expected' WHERE kind = 'budget'")
    op.execute("UPDATE limits SET pair_id = scope_id WHERE kind = 'rate'")

    with op.batch_alter_table("teams", schema=None) as batch_op:
        batch_op.add_column(
            sa.Column(
                "allot",
                _choice("allotment", ("free", "strict")),
                nullable=False,
                server_default="free",
            )
        )

    with op.batch_alter_table("virtual_keys", schema=None) as batch_op:
        batch_op.add_column(sa.Column("pool_ids", sa.JSON(none_as_null=True), nullable=True))


def downgrade() -> None:
    with op.batch_alter_table("virtual_keys", schema=None) as batch_op:
        batch_op.drop_column("pool_ids")

    with op.batch_alter_table("teams", schema=None) as batch_op:
        batch_op.drop_column("allot")

    # Of what the older version cannot count nothing may stay.
    op.execute(
        "DELETE FROM limits WHERE window_kind NOT IN ('rolling', 'calendar') OR kind NOT IN "
        "('budget', 'breaker', 'rate', 'quota') OR scope_kind NOT IN "
        "('organization', 'team', 'member', 'key')"
    )
    op.execute("UPDATE limits SET hold = 'bound'")
    with op.batch_alter_table("limits", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_limits_organization_id_pair_id"))
        batch_op.drop_column("pair_id")
        for column in _new_columns():
            batch_op.drop_column(column.name)

    op.drop_table("installation_limits")
    op.drop_table("pools")
