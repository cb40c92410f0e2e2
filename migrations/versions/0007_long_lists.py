"""Long lists: what they are put in order by is kept beside keys and budgets, and indexes find what is searched; room in
the pages of what is updated often.

Revision ID: 0007
Revises: 0006
"""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

# The pieces of a text in small letters, of so many letters and up to three; what contains a text has all of its pieces.
# It costs much: only the index is to call it.
GRAMS = """
CREATE FUNCTION portico_grams(told text, shortest integer) RETURNS text[]
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE COST 10000
BEGIN ATOMIC
  SELECT coalesce(array_agg(DISTINCT substr(lower(told), place, long)), '{}'::text[])
  FROM generate_series(1, length(told)) AS place, generate_series(shortest, 3) AS long
  WHERE place + long - 1 <= length(told);
END
"""
# Searched columns of a table, as `app.domain.search.contains` tells them.
SEARCHED = {
    "api_key": "CAST(name AS TEXT) || E'\\n' || coalesce(CAST(note AS TEXT), '')",
    "delivery": "CAST(target AS TEXT) || E'\\n' || coalesce(CAST(kind AS TEXT), '')",
}

UPDATED = ("usage_hourly", "usage_rollup", "usage_cut", "scope_spent", "budget", "api_key")


def upgrade() -> None:
    op.add_column("api_key", sa.Column("last_used_ms", sa.BigInteger(), nullable=False, server_default="0"))
    op.execute(
        "UPDATE api_key SET last_used_ms = coalesce((SELECT max(at_ms) FROM usage_entry WHERE key_id = api_key.id), 0)"
        " WHERE EXISTS (SELECT 1 FROM usage_entry WHERE key_id = api_key.id)"
    )
    op.add_column("budget", sa.Column("spent_nano", sa.BigInteger(), nullable=False, server_default="0"))
    op.add_column("budget", sa.Column("spent_period", sa.String(length=64), nullable=True))
    op.add_column("budget", sa.Column("spent_at_ms", sa.BigInteger(), nullable=False, server_default="0"))
    op.execute(
        "UPDATE budget SET spent_nano = latest.spent_nano, spent_period = latest.period, spent_at_ms = latest.last_at_ms"
        " FROM (SELECT kind, id, period, spent_nano, last_at_ms, row_number() OVER"
        " (PARTITION BY kind, id ORDER BY last_at_ms DESC, period DESC) AS place FROM scope_spent) AS latest"
        " WHERE latest.place = 1 AND latest.kind = budget.scope_kind AND latest.id = budget.scope_id"
    )
    op.create_index(op.f("ix_api_key_last_used_ms_id"), "api_key", ["last_used_ms", "id"])
    op.create_index(op.f("ix_api_key_expires_at"), "api_key", ["expires_at"])
    for state in ("paused", "revoked"):
        held = sa.text(f"{state}_at IS NOT NULL")
        op.create_index(f"ix_api_key_{state}", "api_key", ["id"], sqlite_where=held, postgresql_where=held)
    op.create_index(op.f("ix_key_secret_last4"), "key_secret", ["last4"])
    op.create_index(op.f("ix_key_secret_prefix"), "key_secret", ["prefix"])
    op.create_index(op.f("ix_audit_entry_object_id"), "audit_entry", ["object_id"])
    op.create_index(op.f("ix_audit_entry_object_name"), "audit_entry", ["object_name"])
    op.create_index(op.f("ix_audit_entry_action"), "audit_entry", ["action"])
    op.create_index(op.f("ix_delivery_channel_id"), "delivery", ["channel", "id"])
    if op.get_bind().dialect.name == "postgresql":
        for table in UPDATED:  # a row that moves within its page leaves the indexes alone
            op.execute(f"ALTER TABLE {table} SET (fillfactor = 70)")
        op.execute(GRAMS)
        for table, told in SEARCHED.items():
            op.execute(f"CREATE INDEX ix_{table}_grams ON {table} USING gin (portico_grams({told}, 1))")
        op.execute("CREATE INDEX ix_api_key_models ON api_key USING gin (CAST(models AS jsonb))")
        op.execute("CREATE INDEX ix_api_key_expires_last ON api_key (expires_at DESC NULLS LAST, id DESC)")


def downgrade() -> None:
    if op.get_bind().dialect.name == "postgresql":
        op.execute("DROP INDEX ix_api_key_expires_last")
        op.execute("DROP INDEX ix_api_key_models")
        for table in SEARCHED:
            op.execute(f"DROP INDEX ix_{table}_grams")
        op.execute("DROP FUNCTION portico_grams(text, integer)")
        for table in UPDATED:
            op.execute(f"ALTER TABLE {table} RESET (fillfactor)")
    op.drop_index(op.f("ix_delivery_channel_id"), "delivery")
    op.drop_index(op.f("ix_audit_entry_action"), "audit_entry")
    op.drop_index(op.f("ix_audit_entry_object_name"), "audit_entry")
    op.drop_index(op.f("ix_audit_entry_object_id"), "audit_entry")
    op.drop_index(op.f("ix_key_secret_prefix"), "key_secret")
    op.drop_index(op.f("ix_key_secret_last4"), "key_secret")
    for state in ("revoked", "paused"):
        op.drop_index(f"ix_api_key_{state}", "api_key")
    op.drop_index(op.f("ix_api_key_expires_at"), "api_key")
    op.drop_index(op.f("ix_api_key_last_used_ms_id"), "api_key")
    for name in ("spent_at_ms", "spent_period", "spent_nano"):
        op.drop_column("budget", name)
    op.drop_column("api_key", "last_used_ms")
