"""People name their access tokens and choose a time zone and a theme. Instant: no row is rewritten.

Revision ID: 0020
Revises: 0019
"""

import sqlalchemy as sa
from alembic import op

revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("person", sa.Column("timezone", sa.String(64), nullable=False, server_default="UTC"))
    op.add_column("person", sa.Column("theme", sa.String(8), nullable=False, server_default="system"))
    op.add_column("access_token", sa.Column("name", sa.String(100), nullable=True))


def downgrade() -> None:
    op.drop_column("access_token", "name")  # in place: a copy of the table would lose the index of usernames
    for name in ("theme", "timezone"):
        op.drop_column("person", name)
