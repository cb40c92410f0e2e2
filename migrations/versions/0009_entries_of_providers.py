"""The newest entries of a provider are found by an index, also of one that is hardly used.

Revision ID: 0009
Revises: 0008
"""

from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index("ix_usage_entry_provider_id_at_ms_id", "usage_entry", ["provider_id", "at_ms", "id"])


def downgrade() -> None:
    op.drop_index("ix_usage_entry_provider_id_at_ms_id", "usage_entry")
