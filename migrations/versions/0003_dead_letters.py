"""Dead letters are judged: whether one still waits, was posted after all or was dismissed, when, by whom and why.

Revision ID: 0003
Revises: 0002
"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("dead_letter") as table:
        table.add_column(sa.Column("state", sa.String(length=16), nullable=False, server_default="open"))
        table.add_column(sa.Column("resolved_at", sa.DateTime(timezone=True), nullable=True))
        table.add_column(sa.Column("resolved_by", sa.String(length=64), nullable=True))
        table.add_column(sa.Column("note", sa.Text(), nullable=True))
    op.create_index(op.f("ix_dead_letter_state_at_ms"), "dead_letter", ["state", "at_ms"], unique=False)


def downgrade() -> None:
    op.drop_index(op.f("ix_dead_letter_state_at_ms"), table_name="dead_letter")
    with op.batch_alter_table("dead_letter") as table:
        table.drop_column("note")
        table.drop_column("resolved_by")
        table.drop_column("resolved_at")
        table.drop_column("state")
