"""Whose call it was by the client's words, what had no price, and the tags that keys and teams allow. No row is rewritten.

Revision ID: 0019
Revises: 0018
"""

import sqlalchemy as sa
from alembic import op

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None

TEXTS = ("session_id", "agent", "subagent_id", "turn_id")
LISTS = {"tags": "[]", "unpriced": "{}"}
FOUND_BY = ("session_id", "turn_id")


def upgrade() -> None:
    for name in TEXTS:
        op.add_column("usage_entry", sa.Column(name, sa.Text(), nullable=True))
    for name, nothing in LISTS.items():
        op.add_column("usage_entry", sa.Column(name, sa.JSON(), nullable=False, server_default=nothing))
    for name in FOUND_BY:
        given = sa.text(f"{name} IS NOT NULL")
        op.create_index(
            f"ix_usage_entry_{name}", "usage_entry", [name, "at_ms", "id"], sqlite_where=given, postgresql_where=given
        )
    op.create_table(
        "usage_tag",
        sa.Column("tag", sa.String(64), nullable=False),
        sa.Column("entry_id", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("tag", "entry_id", name=op.f("pk_usage_tag")),
    )
    op.create_index(op.f("ix_usage_tag_entry_id"), "usage_tag", ["entry_id"])
    op.create_table(
        "unpriced_usage",
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("quantity", sa.Text(), nullable=False),
        sa.Column("price_id", sa.Text(), nullable=False),
        *(sa.Column(name, sa.BigInteger(), nullable=False) for name in ("requests", "amount", "first_ms", "last_ms")),
        sa.PrimaryKeyConstraint("model", "quantity", "price_id", name=op.f("pk_unpriced_usage")),
    )
    for table in ("api_key", "team"):
        op.add_column(table, sa.Column("tags", sa.JSON(), nullable=False, server_default="[]"))


def downgrade() -> None:
    for table in ("team", "api_key"):
        with op.batch_alter_table(table) as batch:
            batch.drop_column("tags")
    op.drop_table("unpriced_usage")
    op.drop_table("usage_tag")
    for name in FOUND_BY:
        op.drop_index(f"ix_usage_entry_{name}", "usage_entry")
    for name in (*reversed(LISTS), *reversed(TEXTS)):
        op.drop_column("usage_entry", name)
