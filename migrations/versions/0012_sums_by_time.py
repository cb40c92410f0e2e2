"""Sums are named by their time first: what is summed up anew lies together, however long the ledger is.

Revision ID: 0012
Revises: 0011
"""

from collections.abc import Mapping, Sequence

from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

BY_TIME = {
    "usage_rollup": ["kind", "start_ms", "group_key"],
    "usage_cut": ["cut", "kind", "start_ms", "group_key"],
}
BY_GROUP = dict.fromkeys(BY_TIME, ["group_key", "kind", "start_ms"])
TIMES = {"usage_rollup": ["kind", "start_ms"], "usage_cut": ["cut", "kind", "start_ms"]}


def upgrade() -> None:
    for table, names in TIMES.items():  # the new keys begin with these
        op.drop_index(op.f(f"ix_{table}_{'_'.join(names)}"), table)
    _key(BY_TIME)


def downgrade() -> None:
    _key(BY_GROUP)
    for table, names in TIMES.items():
        op.create_index(op.f(f"ix_{table}_{'_'.join(names)}"), table, names)


def _key(keys: Mapping[str, Sequence[str]]) -> None:
    for table, names in keys.items():
        with op.batch_alter_table(table) as batch:
            batch.drop_constraint(op.f(f"pk_{table}"), type_="primary")
            batch.create_primary_key(op.f(f"pk_{table}"), list(names))
