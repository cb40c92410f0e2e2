"""The ledger: usage entries, dead letters, what each scope spent, and the rollups by hour, day, week and month.

Revision ID: 0002
Revises: 0001
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "dead_letter",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("raw", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("at_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_dead_letter")),
        sa.UniqueConstraint("digest", name=op.f("uq_dead_letter_digest")),
    )
    op.create_index(op.f("ix_dead_letter_at_ms"), "dead_letter", ["at_ms"], unique=False)
    op.create_table(
        "scope_spent",
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("period", sa.Text(), nullable=False),
        sa.Column("spent_nano", sa.BigInteger(), nullable=False),
        sa.Column("entries", sa.BigInteger(), nullable=False),
        sa.Column("last_at_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("kind", "id", "period", name=op.f("pk_scope_spent")),
    )
    op.create_index(op.f("ix_scope_spent_last_at_ms"), "scope_spent", ["last_at_ms"], unique=False)
    op.create_table(
        "usage_entry",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("request_id", sa.Text(), nullable=False),
        sa.Column("attempt", sa.BigInteger(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("at_ms", sa.BigInteger(), nullable=False),
        sa.Column("person_id", sa.Text(), nullable=False),
        sa.Column("key_id", sa.Text(), nullable=True),
        sa.Column("team_id", sa.Text(), nullable=True),
        sa.Column("subscription_id", sa.Text(), nullable=True),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("endpoint", sa.Text(), nullable=False),
        sa.Column("api_type", sa.Text(), nullable=False),
        sa.Column("provider_id", sa.Text(), nullable=True),
        sa.Column("deployment_id", sa.Text(), nullable=True),
        sa.Column("outcome", sa.Text(), nullable=False),
        sa.Column("status", sa.BigInteger(), nullable=False),
        sa.Column("error_code", sa.Text(), nullable=True),
        sa.Column("error_message", sa.Text(), nullable=True),
        sa.Column("finish_reason", sa.Text(), nullable=True),
        sa.Column("stream", sa.Boolean(), nullable=False),
        sa.Column("estimated", sa.Boolean(), nullable=False),
        sa.Column("prompt_tokens", sa.BigInteger(), nullable=False),
        sa.Column("cached_tokens", sa.BigInteger(), nullable=False),
        sa.Column("completion_tokens", sa.BigInteger(), nullable=False),
        sa.Column("images", sa.BigInteger(), nullable=False),
        sa.Column("audio_ms", sa.BigInteger(), nullable=False),
        sa.Column("cost_nano", sa.BigInteger(), nullable=False),
        sa.Column("hold_nano", sa.BigInteger(), nullable=False),
        sa.Column("overdraft_nano", sa.BigInteger(), nullable=False),
        sa.Column("price_id", sa.Text(), nullable=True),
        sa.Column("duration_ms", sa.BigInteger(), nullable=False),
        sa.Column("ttft_ms", sa.BigInteger(), nullable=True),
        sa.Column("attempts", sa.JSON(), nullable=False),
        sa.Column("scopes", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_usage_entry")),
        sa.UniqueConstraint("request_id", "attempt", "kind", name=op.f("uq_usage_entry_request_id_attempt_kind")),
    )
    op.create_index(op.f("ix_usage_entry_at_ms_id"), "usage_entry", ["at_ms", "id"], unique=False)
    op.create_index(op.f("ix_usage_entry_key_id_at_ms_id"), "usage_entry", ["key_id", "at_ms", "id"], unique=False)
    op.create_index(op.f("ix_usage_entry_model_at_ms_id"), "usage_entry", ["model", "at_ms", "id"], unique=False)
    op.create_index(
        op.f("ix_usage_entry_person_id_at_ms_id"), "usage_entry", ["person_id", "at_ms", "id"], unique=False
    )
    op.create_table(
        "usage_hourly",
        sa.Column("start_ms", sa.BigInteger(), nullable=False),
        sa.Column("derived", sa.Boolean(), nullable=False),
        sa.Column("group_key", sa.String(length=32), nullable=False),
        sa.Column("person_id", sa.Text(), nullable=False),
        sa.Column("key_id", sa.Text(), nullable=False),
        sa.Column("team_id", sa.Text(), nullable=False),
        sa.Column("subscription_id", sa.Text(), nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("provider_id", sa.Text(), nullable=False),
        sa.Column("endpoint", sa.Text(), nullable=False),
        sa.Column("api_type", sa.Text(), nullable=False),
        sa.Column("stream", sa.Boolean(), nullable=False),
        sa.Column("requests", sa.BigInteger(), nullable=False),
        sa.Column("errors", sa.BigInteger(), nullable=False),
        sa.Column("cancelled", sa.BigInteger(), nullable=False),
        sa.Column("prompt_tokens", sa.BigInteger(), nullable=False),
        sa.Column("cached_tokens", sa.BigInteger(), nullable=False),
        sa.Column("completion_tokens", sa.BigInteger(), nullable=False),
        sa.Column("images", sa.BigInteger(), nullable=False),
        sa.Column("audio_ms", sa.BigInteger(), nullable=False),
        sa.Column("cost_nano", sa.BigInteger(), nullable=False),
        sa.Column("overdraft_nano", sa.BigInteger(), nullable=False),
        sa.Column("duration_ms", sa.BigInteger(), nullable=False),
        sa.Column("ttft_ms", sa.BigInteger(), nullable=False),
        sa.Column("ttft_count", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("group_key", "start_ms", name=op.f("pk_usage_hourly")),
    )
    op.create_index(op.f("ix_usage_hourly_key_id_start_ms"), "usage_hourly", ["key_id", "start_ms"], unique=False)
    op.create_index(op.f("ix_usage_hourly_person_id_start_ms"), "usage_hourly", ["person_id", "start_ms"], unique=False)
    op.create_index(op.f("ix_usage_hourly_start_ms"), "usage_hourly", ["start_ms"], unique=False)
    op.create_index(op.f("ix_usage_hourly_team_id_start_ms"), "usage_hourly", ["team_id", "start_ms"], unique=False)
    op.create_index(
        "ix_usage_hourly_underived",
        "usage_hourly",
        ["start_ms"],
        unique=False,
        sqlite_where=sa.text("NOT derived"),
        postgresql_where=sa.text("NOT derived"),
    )
    op.create_table(
        "usage_rollup",
        sa.Column("kind", sa.String(length=8), nullable=False),
        sa.Column("start_ms", sa.BigInteger(), nullable=False),
        sa.Column("group_key", sa.String(length=32), nullable=False),
        sa.Column("person_id", sa.Text(), nullable=False),
        sa.Column("key_id", sa.Text(), nullable=False),
        sa.Column("team_id", sa.Text(), nullable=False),
        sa.Column("subscription_id", sa.Text(), nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("provider_id", sa.Text(), nullable=False),
        sa.Column("endpoint", sa.Text(), nullable=False),
        sa.Column("api_type", sa.Text(), nullable=False),
        sa.Column("stream", sa.Boolean(), nullable=False),
        sa.Column("requests", sa.BigInteger(), nullable=False),
        sa.Column("errors", sa.BigInteger(), nullable=False),
        sa.Column("cancelled", sa.BigInteger(), nullable=False),
        sa.Column("prompt_tokens", sa.BigInteger(), nullable=False),
        sa.Column("cached_tokens", sa.BigInteger(), nullable=False),
        sa.Column("completion_tokens", sa.BigInteger(), nullable=False),
        sa.Column("images", sa.BigInteger(), nullable=False),
        sa.Column("audio_ms", sa.BigInteger(), nullable=False),
        sa.Column("cost_nano", sa.BigInteger(), nullable=False),
        sa.Column("overdraft_nano", sa.BigInteger(), nullable=False),
        sa.Column("duration_ms", sa.BigInteger(), nullable=False),
        sa.Column("ttft_ms", sa.BigInteger(), nullable=False),
        sa.Column("ttft_count", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("group_key", "kind", "start_ms", name=op.f("pk_usage_rollup")),
    )
    op.create_index(
        op.f("ix_usage_rollup_key_id_kind_start_ms"), "usage_rollup", ["key_id", "kind", "start_ms"], unique=False
    )
    op.create_index(op.f("ix_usage_rollup_kind_start_ms"), "usage_rollup", ["kind", "start_ms"], unique=False)
    op.create_index(
        op.f("ix_usage_rollup_person_id_kind_start_ms"), "usage_rollup", ["person_id", "kind", "start_ms"], unique=False
    )


def downgrade() -> None:
    op.drop_table("usage_rollup")
    op.drop_table("usage_hourly")
    op.drop_table("usage_entry")
    op.drop_table("scope_spent")
    op.drop_table("dead_letter")
