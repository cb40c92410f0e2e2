"""More quantities of usage and members of prices, service tiers and long prompts.

Revision ID: 0015
Revises: 0014
"""

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None

QUANTITIES = (
    "cache_write_tokens", "cache_write_1h_tokens", "audio_input_tokens", "image_input_tokens", "reasoning_tokens",
    "audio_output_tokens", "image_output_tokens", "characters",
)  # fmt: skip
TABLES = ("usage_entry", "usage_hourly", "usage_rollup", "usage_cut")
PRICES = (
    "cache_write_per_mtok", "cache_write_1h_per_mtok", "audio_input_per_mtok", "image_input_per_mtok",
    "audio_output_per_mtok", "image_output_per_mtok", "per_million_characters",
)  # fmt: skip


def upgrade() -> None:
    for table in TABLES:
        for name in QUANTITIES:
            op.add_column(table, sa.Column(name, sa.BigInteger(), nullable=False, server_default="0"))
    op.add_column("usage_entry", sa.Column("service_tier", sa.Text(), nullable=True))
    for name in PRICES:
        op.add_column("price", sa.Column(name, sa.BigInteger(), nullable=True))
    op.add_column("price", sa.Column("tiers", sa.JSON(), nullable=False, server_default="{}"))
    op.add_column("price", sa.Column("long_context", sa.JSON(), nullable=True))


def downgrade() -> None:
    with op.batch_alter_table("price") as batch:
        for name in ("long_context", "tiers", *reversed(PRICES)):
            batch.drop_column(name)
    op.drop_column("usage_entry", "service_tier")
    for table in reversed(TABLES):
        for name in reversed(QUANTITIES):
            op.drop_column(table, name)
