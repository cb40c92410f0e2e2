"""What is kept of the synchronisation with LiteLLM. Instant: only new tables.

Revision ID: 0031
Revises: 0030
"""

import sqlalchemy as sa
from alembic import op

revision = "0031"
down_revision = "0030"
branch_labels = None
depends_on = None

AT = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "sync_connection",
        sa.Column("id", sa.String(16), primary_key=True),
        sa.Column("url", sa.String(500), nullable=True),
        sa.Column("sealed", sa.Text(), nullable=True),
        sa.Column("hint", sa.String(16), nullable=True),
        sa.Column("interval_minutes", sa.BigInteger(), nullable=False),
        sa.Column("timeout_s", sa.BigInteger(), nullable=False),
        sa.Column("failures", sa.BigInteger(), nullable=False),
        sa.Column("open_until_ms", sa.BigInteger(), nullable=False),
        sa.Column("since", AT, nullable=False),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("updated_at", AT, nullable=False),
    )
    op.create_table(
        "sync_policy",
        sa.Column("entity", sa.String(16), primary_key=True),
        sa.Column("create", sa.String(8), nullable=False),
        sa.Column("conflict", sa.String(8), nullable=False),
        sa.Column("delete", sa.String(8), nullable=False),
    )
    op.create_table(
        "sync_link",
        sa.Column("id", sa.String(36), primary_key=True),
        sa.Column("entity", sa.String(16), nullable=False),
        sa.Column("portico_id", sa.String(80), nullable=False),
        sa.Column("litellm_id", sa.String(600), nullable=False),
        sa.Column("portico", sa.JSON(), nullable=False),
        sa.Column("litellm", sa.JSON(), nullable=False),
        sa.Column("kept", sa.Boolean(), nullable=False),
        sa.Column("decided", sa.JSON(), nullable=False),
        sa.Column("synced_at", AT, nullable=False),
    )
    op.create_index(
        "ix_sync_link_entity_portico_id_litellm_id", "sync_link", ["entity", "portico_id", "litellm_id"], unique=True
    )
    op.create_index("ix_sync_link_entity_litellm_id", "sync_link", ["entity", "litellm_id"])
    op.create_table(
        "sync_plan",
        sa.Column("id", sa.String(36), primary_key=True),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("entities", sa.JSON(), nullable=False),
        sa.Column("counts", sa.JSON(), nullable=False),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("by_id", sa.String(36), nullable=True),
        sa.Column("created_at", AT, nullable=False),
    )
    op.create_table(
        "sync_step",
        sa.Column("id", sa.String(36), primary_key=True),
        sa.Column("plan_id", sa.String(36), sa.ForeignKey("sync_plan.id", ondelete="CASCADE"), nullable=False),
        sa.Column("position", sa.BigInteger(), nullable=False),
        sa.Column("entity", sa.String(16), nullable=False),
        sa.Column("act", sa.String(16), nullable=False),
        sa.Column("side", sa.String(8), nullable=True),
        sa.Column("name", sa.String(600), nullable=False),
        sa.Column("portico_id", sa.String(80), nullable=True),
        sa.Column("litellm_id", sa.String(600), nullable=True),
        sa.Column("fields", sa.JSON(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("state", sa.String(8), nullable=False),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("decision", sa.JSON(), nullable=True),
    )
    op.create_index("ix_sync_step_plan_id_position", "sync_step", ["plan_id", "position"])
    op.create_table(
        "sync_run",
        sa.Column("id", sa.String(36), primary_key=True),
        sa.Column("plan_id", sa.String(36), sa.ForeignKey("sync_plan.id", ondelete="CASCADE"), nullable=False),
        sa.Column("state", sa.String(8), nullable=False),
        sa.Column("done", sa.BigInteger(), nullable=False),
        sa.Column("total", sa.BigInteger(), nullable=False),
        sa.Column("counts", sa.JSON(), nullable=False),
        sa.Column("errors", sa.JSON(), nullable=False),
        sa.Column("by_id", sa.String(36), nullable=True),
        sa.Column("leased_until_ms", sa.BigInteger(), nullable=False),
        sa.Column("started_at", AT, nullable=False),
        sa.Column("finished_at", AT, nullable=True),
        sa.UniqueConstraint("plan_id", name="uq_sync_run_plan_id"),
    )


def downgrade() -> None:
    for table in ("sync_run", "sync_step", "sync_plan", "sync_link", "sync_policy", "sync_connection"):
        op.drop_table(table)
