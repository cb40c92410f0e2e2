"""Log lines. Instant: a new table.

Revision ID: 0030
Revises: 0029
"""

import sqlalchemy as sa
from alembic import op

revision = "0030"
down_revision = "0029"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "log_entry",
        sa.Column("id", sa.String(32), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("level", sa.BigInteger(), nullable=False),
        sa.Column("component", sa.String(16), nullable=False),
        sa.Column("message", sa.Text(), nullable=False),
        sa.Column("request_id", sa.String(64), nullable=True),
        sa.Column("context", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_log_entry")),
    )
    for columns in (["at"], ["component", "id"], ["level", "id"], ["request_id"]):
        op.create_index(f"ix_log_entry_{'_'.join(columns)}", "log_entry", columns)


def downgrade() -> None:
    op.drop_table("log_entry")
