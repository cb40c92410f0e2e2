"""What a model's embeddings make of queries and of passages. Instant: no row is rewritten.

Revision ID: 0018
Revises: 0017
"""

import sqlalchemy as sa
from alembic import op

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None

INSTRUCTIONS = ("query_instruction", "passage_instruction")


def upgrade() -> None:
    for name in INSTRUCTIONS:
        op.add_column("model", sa.Column(name, sa.Text(), nullable=False, server_default=""))


def downgrade() -> None:
    with op.batch_alter_table("model") as batch:
        for name in INSTRUCTIONS:
            batch.drop_column(name)
