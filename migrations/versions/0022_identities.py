"""Accounts are linked to identity providers, and SCIM clients name people and teams. Instant: no row is rewritten.

Revision ID: 0022
Revises: 0021
"""

import sqlalchemy as sa
from alembic import op

revision = "0022"
down_revision = "0021"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "identity",
        sa.Column("id", sa.String(36), primary_key=True),
        sa.Column("person_id", sa.String(36), sa.ForeignKey("person.id", ondelete="CASCADE"), nullable=False),
        sa.Column("issuer", sa.String(255), nullable=False),
        sa.Column("subject", sa.String(255), nullable=False),
        sa.Column("groups", sa.JSON(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("last_used_at", sa.DateTime(timezone=True), nullable=True),
    )
    op.create_index("ix_identity_person_id", "identity", ["person_id"])
    op.create_index("ix_identity_issuer_subject", "identity", ["issuer", "subject"], unique=True)
    for table in ("person", "team"):
        op.add_column(table, sa.Column("external_id", sa.String(255), nullable=True))
        op.create_index(f"ix_{table}_external_id", table, ["external_id"], unique=True)
    op.add_column("person", sa.Column("scim", sa.JSON(), nullable=True))
    op.add_column("membership", sa.Column("given_by", sa.String(8), nullable=True))


def downgrade() -> None:
    op.drop_column("membership", "given_by")
    op.drop_column("person", "scim")
    for table in ("person", "team"):
        op.drop_index(f"ix_{table}_external_id", table)
        op.drop_column(table, "external_id")
    op.drop_table("identity")
