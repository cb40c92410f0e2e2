"""The sums of models lie in the order of time and name: what is told day by day is added up as it is read.

Revision ID: 0011
Revises: 0010
"""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

INDEX, TABLE = "ix_usage_cut_models", "usage_cut"
OF_MODELS = sa.text("cut = 'model'")
TOLD = ["api_type", "requests", "errors", "prompt_tokens", "completion_tokens", "cost_nano"]


def upgrade() -> None:
    _index(["kind", "start_ms", "model"], TOLD)


def downgrade() -> None:
    _index(["kind", "start_ms"], ["model", *TOLD])


def _index(names: list[str], told: list[str]) -> None:
    op.drop_index(INDEX, TABLE)
    op.create_index(
        INDEX, TABLE, names, sqlite_where=OF_MODELS, postgresql_where=OF_MODELS, postgresql_include=told
    )
