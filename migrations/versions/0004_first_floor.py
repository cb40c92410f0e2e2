"""The portal's first floor: notices, deliveries, announcements, invitations, approval rules, renewals, paused keys,
and in the books which secret of a key was used and what a repair moved.

Revision ID: 0004
Revises: 0003
"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

MOMENT = sa.DateTime(timezone=True)
PARTS = (
    ("ix_usage_entry_errors", sa.text("outcome = 'error'")),
    ("ix_usage_entry_repairs", sa.text("kind = 'repair'")),
)
COLUMNS = (
    ("person", sa.Column("groups", sa.JSON(), nullable=False, server_default="[]")),
    ("person", sa.Column("email_notices", sa.Boolean(), nullable=False, server_default=sa.true())),
    ("subscription", sa.Column("renewal_asked_at", MOMENT, nullable=True)),
    ("subscription", sa.Column("renewal_reason", sa.Text(), nullable=True)),
    ("api_key", sa.Column("note", sa.String(length=500), nullable=True)),
    ("api_key", sa.Column("paused_at", MOMENT, nullable=True)),
    ("model", sa.Column("image_tokens", sa.BigInteger(), nullable=True)),
    ("model", sa.Column("audio_tokens", sa.BigInteger(), nullable=True)),
    ("model", sa.Column("status_at", MOMENT, nullable=True)),
    ("usage_entry", sa.Column("secret_id", sa.Text(), nullable=True)),
    ("usage_entry", sa.Column("moved_nano", sa.BigInteger(), nullable=False, server_default="0")),
)


def upgrade() -> None:
    op.create_table(
        "notice",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("person_id", sa.String(length=36), nullable=False),
        sa.Column("kind", sa.String(length=64), nullable=False),
        sa.Column("title", sa.String(length=200), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("href", sa.String(length=500), nullable=True),
        sa.Column("at", MOMENT, nullable=False),
        sa.Column("read_at", MOMENT, nullable=True),
        sa.ForeignKeyConstraint(
            ["person_id"], ["person.id"], name=op.f("fk_notice_person_id_person"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_notice")),
    )
    op.create_index(op.f("ix_notice_person_id_read_at"), "notice", ["person_id", "read_at"])
    op.create_index(op.f("ix_notice_person_id_id"), "notice", ["person_id", "id"])
    op.create_table(
        "delivery",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("channel", sa.String(length=8), nullable=False),
        sa.Column("target", sa.String(length=500), nullable=False),
        sa.Column("kind", sa.String(length=64), nullable=False),
        sa.Column("payload", sa.JSON(), nullable=False),
        sa.Column("state", sa.String(length=8), nullable=False),
        sa.Column("attempts", sa.BigInteger(), nullable=False),
        sa.Column("last_error", sa.Text(), nullable=True),
        sa.Column("at", MOMENT, nullable=False),
        sa.Column("done_at", MOMENT, nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_delivery")),
    )
    op.create_index(op.f("ix_delivery_state_at"), "delivery", ["state", "at"])
    op.create_table(
        "announcement",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("level", sa.String(length=8), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("by", sa.String(length=64), nullable=False),
        sa.Column("at", MOMENT, nullable=False),
        sa.Column("ends_at", MOMENT, nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_announcement")),
    )
    op.create_table(
        "invitation",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("email", sa.String(length=255), nullable=True),
        sa.Column("role", sa.String(length=16), nullable=False),
        sa.Column("groups", sa.JSON(), nullable=False),
        sa.Column("invited_by", sa.String(length=64), nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("expires_at", MOMENT, nullable=False),
        sa.Column("used_at", MOMENT, nullable=True),
        sa.Column("withdrawn_at", MOMENT, nullable=True),
        sa.Column("person_id", sa.String(length=36), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_invitation")),
        sa.UniqueConstraint("digest", name=op.f("uq_invitation_digest")),
    )
    op.create_table(
        "approval_rule",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("name", sa.String(length=100), nullable=False),
        sa.Column("position", sa.BigInteger(), nullable=False),
        sa.Column("active", sa.Boolean(), nullable=False),
        sa.Column("role", sa.String(length=16), nullable=True),
        sa.Column("group_name", sa.String(length=100), nullable=True),
        sa.Column("most_input_per_mtok", sa.BigInteger(), nullable=True),
        sa.Column("most_output_per_mtok", sa.BigInteger(), nullable=True),
        sa.Column("budget_limit_nano", sa.BigInteger(), nullable=True),
        sa.Column("budget_period", sa.String(length=8), nullable=True),
        sa.Column("days", sa.BigInteger(), nullable=True),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_approval_rule")),
    )
    # Columns are added and dropped in place: on SQLite a table that is made anew would take with it what refers to it.
    for table, column in COLUMNS:
        op.add_column(table, column)
    for name, rows in PARTS:
        op.create_index(name, "usage_entry", ["at_ms", "id"], sqlite_where=rows, postgresql_where=rows)
    op.execute("UPDATE model SET status_at = updated_at")


def downgrade() -> None:
    for name, _ in PARTS:
        op.drop_index(name, table_name="usage_entry")
    for table, column in reversed(COLUMNS):
        op.drop_column(table, column.name)
    for name in ("approval_rule", "invitation", "announcement", "delivery", "notice"):
        op.drop_table(name)
