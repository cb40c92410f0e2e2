"""Refused calls in the ledger and its sums. No row is rewritten.

Revision ID: 0024
Revises: 0023
"""

import sqlalchemy as sa
from alembic import op

revision = "0024"
down_revision = "0023"
branch_labels = None
depends_on = None

SUMMED = ("usage_entry", "usage_hourly", "usage_rollup", "usage_cut")
REFUSED = sa.text("outcome = 'refused'")
INDEXES = {
    "ix_usage_entry_refused": (),
    **{f"ix_usage_entry_refused_{name}": (name,) for name in ("person_id", "key_id", "team_id", "model")},
}


def upgrade() -> None:
    for table in SUMMED:
        op.add_column(table, sa.Column("refused", sa.BigInteger(), nullable=False, server_default="0"))
    op.add_column("usage_entry", sa.Column("refusal", sa.JSON(), nullable=True))
    for name, first in INDEXES.items():
        columns = [*first, "at_ms", "id"]
        op.create_index(name, "usage_entry", columns, sqlite_where=REFUSED, postgresql_where=REFUSED)


def downgrade() -> None:
    for name in INDEXES:
        op.drop_index(name, "usage_entry")
    # What was before could not read them.
    op.execute("DELETE FROM usage_tag WHERE entry_id IN (SELECT id FROM usage_entry WHERE kind = 'refusal')")
    op.execute("DELETE FROM usage_entry WHERE kind = 'refusal'")
    op.drop_column("usage_entry", "refusal")
    for table in SUMMED:
        op.drop_column(table, "refused")
