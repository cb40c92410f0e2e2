"""When a path of /v1 was known first, and changed last.

Revision ID: 0013
Revises: 0012
"""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

TIME = sa.DateTime(timezone=True)
TIMES = ("created_at", "updated_at")


def upgrade() -> None:
    for name in TIMES:
        op.add_column("endpoint", sa.Column(name, TIME, nullable=True))
    endpoint = sa.table("endpoint", *(sa.column(name, TIME) for name in TIMES))
    op.execute(endpoint.update().values(dict.fromkeys(TIMES, sa.func.now())))
    with op.batch_alter_table("endpoint") as batch:
        for name in TIMES:
            batch.alter_column(name, existing_type=TIME, nullable=False)


def downgrade() -> None:
    with op.batch_alter_table("endpoint") as batch:
        for name in TIMES:
            batch.drop_column(name)
