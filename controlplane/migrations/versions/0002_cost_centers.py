"""Cost centers of teams, members and keys; revocation of access tokens.

Revision: 0002, after 0001; made 2026-11-24.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "cost_centers",
        sa.Column("code", sa.String(length=60), nullable=False),
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("archived_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("organization_id", sa.Uuid(), nullable=False),
        sa.ForeignKeyConstraint(
            ["organization_id"],
            ["organizations.id"],
            name=op.f("fk_cost_centers_organization_id_organizations"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_cost_centers")),
        sa.UniqueConstraint(
            "organization_id", "code", name=op.f("uq_cost_centers_organization_id_code")
        ),
        sa.UniqueConstraint(
            "organization_id", "id", name=op.f("uq_cost_centers_organization_id_id")
        ),
    )
    with op.batch_alter_table("access_tokens", schema=None) as batch_op:
        batch_op.add_column(sa.Column("revoked_at", sa.DateTime(timezone=True), nullable=True))

    with op.batch_alter_table("decision_records", schema=None) as batch_op:
        batch_op.add_column(sa.Column("cost_center_id", sa.Uuid(), nullable=True))
        batch_op.create_index(
            "ix_decision_records_key",
            ["organization_id", "key_id", "admitted_at_ns", "id"],
            unique=False,
        )

    with op.batch_alter_table("members", schema=None) as batch_op:
        batch_op.add_column(sa.Column("cost_center_id", sa.Uuid(), nullable=True))
        batch_op.create_foreign_key(
            batch_op.f("fk_members_organization_id_cost_center_id_cost_centers"),
            "cost_centers",
            ["organization_id", "cost_center_id"],
            ["organization_id", "id"],
        )

    with op.batch_alter_table("teams", schema=None) as batch_op:
        batch_op.add_column(sa.Column("cost_center_id", sa.Uuid(), nullable=True))
        batch_op.create_foreign_key(
            batch_op.f("fk_teams_organization_id_cost_center_id_cost_centers"),
            "cost_centers",
            ["organization_id", "cost_center_id"],
            ["organization_id", "id"],
        )

    with op.batch_alter_table("virtual_keys", schema=None) as batch_op:
        batch_op.add_column(sa.Column("cost_center_id", sa.Uuid(), nullable=True))
        batch_op.create_foreign_key(
            batch_op.f("fk_virtual_keys_organization_id_cost_center_id_cost_centers"),
            "cost_centers",
            ["organization_id", "cost_center_id"],
            ["organization_id", "id"],
        )


def downgrade() -> None:
    with op.batch_alter_table("virtual_keys", schema=None) as batch_op:
        batch_op.drop_constraint(
            batch_op.f("fk_virtual_keys_organization_id_cost_center_id_cost_centers"),
            type_="foreignkey",
        )
        batch_op.drop_column("cost_center_id")

    with op.batch_alter_table("teams", schema=None) as batch_op:
        batch_op.drop_constraint(
            batch_op.f("fk_teams_organization_id_cost_center_id_cost_centers"), type_="foreignkey"
        )
        batch_op.drop_column("cost_center_id")

    with op.batch_alter_table("members", schema=None) as batch_op:
        batch_op.drop_constraint(
            batch_op.f("fk_members_organization_id_cost_center_id_cost_centers"), type_="foreignkey"
        )
        batch_op.drop_column("cost_center_id")

    with op.batch_alter_table("decision_records", schema=None) as batch_op:
        batch_op.drop_index("ix_decision_records_key")
        batch_op.drop_column("cost_center_id")

    with op.batch_alter_table("access_tokens", schema=None) as batch_op:
        batch_op.drop_column("revoked_at")

    op.drop_table("cost_centers")
