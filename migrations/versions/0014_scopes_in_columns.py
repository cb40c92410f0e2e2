"""The team and the person that a scope names, in columns of their own.

Revision ID: 0014
Revises: 0013
"""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None

ID = 36  # characters of an id; a member's scope is two of them with a colon between
COLUMNS = {"budget": ("team_id", "person_id"), "budget_request": ("team_id",)}  # a request has its person already


def upgrade() -> None:
    for name, columns in COLUMNS.items():
        for column in columns:
            op.add_column(name, sa.Column(column, sa.String(ID), nullable=True))
        table = sa.table(name, *map(sa.column, ("scope_kind", "scope_id", *columns)))
        kind, id = table.c.scope_kind, table.c.scope_id
        parts = {
            "team_id": sa.case((kind == "team", id), (kind == "member", sa.func.substr(id, 1, ID))),
            "person_id": sa.case((kind == "user", id), (kind == "member", sa.func.substr(id, ID + 2))),
        }
        named = kind.in_(("team", "user", "member"))
        op.execute(table.update().where(named).values({column: parts[column] for column in columns}))
        op.create_index(f"ix_{name}_team_id", name, ["team_id"])


def downgrade() -> None:
    for name, columns in reversed(COLUMNS.items()):
        op.drop_index(f"ix_{name}_team_id", name)
        with op.batch_alter_table(name) as batch:
            for column in reversed(columns):
                batch.drop_column(column)
