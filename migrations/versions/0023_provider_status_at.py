"""A provider knows since when it has its status. It rewrites the providers, which are few.

Revision ID: 0023
Revises: 0022
"""

import sqlalchemy as sa
from alembic import op

revision = "0023"
down_revision = "0022"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("provider", sa.Column("status_at", sa.DateTime(timezone=True), nullable=True))
    op.execute("UPDATE provider SET status_at = updated_at")


def downgrade() -> None:
    op.drop_column("provider", "status_at")
