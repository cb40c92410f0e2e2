"""An index for what is searched in the audit log. On a long log it takes a while to make; nothing else changes.

Revision ID: 0021
Revises: 0020
"""

from alembic import op

revision = "0021"
down_revision = "0020"
branch_labels = None
depends_on = None

# The searched columns, as `app.domain.search.contains` tells them; the function came with revision 0007.
SEARCHED = (
    "CAST(actor AS TEXT) || E'\\n' || coalesce(CAST(action AS TEXT), '')"
    " || E'\\n' || coalesce(CAST(object_id AS TEXT), '') || E'\\n' || coalesce(CAST(object_name AS TEXT), '')"
)


def upgrade() -> None:
    if op.get_bind().dialect.name == "postgresql":
        op.execute(f"CREATE INDEX ix_audit_entry_grams ON audit_entry USING gin (portico_grams({SEARCHED}, 1))")


def downgrade() -> None:
    if op.get_bind().dialect.name == "postgresql":
        op.execute("DROP INDEX ix_audit_entry_grams")
