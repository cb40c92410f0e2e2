"""Cuts of the rollups: the same sums with dimensions left out, filled from what there is; indexes of long lists.

Revision ID: 0006
Revises: 0005
"""

import hashlib

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

DIMENSIONS = ("person_id", "key_id", "team_id", "subscription_id", "model", "provider_id", "endpoint", "api_type", "stream")
MEASURES = (
    "requests", "errors", "cancelled", "prompt_tokens", "cached_tokens", "completion_tokens", "images", "audio_ms",
    "cost_nano", "overdraft_nano", "duration_ms", "ttft_ms", "ttft_count",
)
CUTS = {
    "whole": ("api_type", "stream"),
    "provider": ("provider_id", "stream"),
    "team": ("team_id",),
    "person": ("person_id",),
    "model": ("model", "provider_id", "endpoint", "api_type", "stream"),
    "payer": ("person_id", "team_id", "stream"),
}
HOURLY_CUTS = ("whole", "provider")
AT_ONCE = 10_000


def upgrade() -> None:
    cut = op.create_table(
        "usage_cut",
        sa.Column("cut", sa.String(length=16), nullable=False),
        sa.Column("kind", sa.String(length=8), nullable=False),
        sa.Column("start_ms", sa.BigInteger(), nullable=False),
        sa.Column("group_key", sa.String(length=32), nullable=False),
        *(sa.Column(name, sa.Text(), nullable=False) for name in DIMENSIONS[:-1]),
        sa.Column("stream", sa.Boolean(), nullable=False),
        *(sa.Column(name, sa.BigInteger(), nullable=False) for name in MEASURES),
        sa.PrimaryKeyConstraint("group_key", "kind", "start_ms", name=op.f("pk_usage_cut")),
    )
    _fill(cut)
    op.create_index(op.f("ix_usage_cut_cut_kind_start_ms"), "usage_cut", ["cut", "kind", "start_ms"])
    op.create_index("ix_usage_cut_found", "usage_cut", ["model", "person_id", "kind", "start_ms"])
    op.create_index(op.f("ix_usage_hourly_model_start_ms"), "usage_hourly", ["model", "start_ms"])
    op.create_index(op.f("ix_usage_rollup_model_kind_start_ms"), "usage_rollup", ["model", "kind", "start_ms"])
    op.create_index(op.f("ix_api_key_name"), "api_key", ["name"])
    waits = sa.text("status = 'pending' OR renewal_asked_at IS NOT NULL")
    op.create_index("ix_subscription_waiting", "subscription", ["id"], sqlite_where=waits, postgresql_where=waits)


def downgrade() -> None:
    op.drop_index("ix_subscription_waiting", "subscription")
    op.drop_index(op.f("ix_api_key_name"), "api_key")
    op.drop_index(op.f("ix_usage_rollup_model_kind_start_ms"), "usage_rollup")
    op.drop_index(op.f("ix_usage_hourly_model_start_ms"), "usage_hourly")
    op.drop_index("ix_usage_cut_found", "usage_cut")
    op.drop_index(op.f("ix_usage_cut_cut_kind_start_ms"), "usage_cut")
    op.drop_table("usage_cut")


def _fill(cut: sa.Table) -> None:
    """Sums are made by the database, the names of their groups here; some at a time, however many there are."""
    connection = op.get_bind()
    for name, kept in CUTS.items():
        for source in (["usage_hourly"] if name in HOURLY_CUTS else []) + ["usage_rollup"]:
            table = _sums(source)
            kind = sa.literal("hour") if source == "usage_hourly" else table.c.kind
            by = [*([] if source == "usage_hourly" else [kind]), table.c.start_ms, *(table.c[one] for one in kept)]
            summed = (sa.cast(sa.func.sum(table.c[one]), sa.BigInteger()).label(one) for one in MEASURES)
            query = sa.select(kind.label("kind"), table.c.start_ms, *(table.c[one] for one in kept), *summed).group_by(*by)
            rows = []
            for found in connection.execute(query.execution_options(yield_per=AT_ONCE)).mappings():
                rows.append(_row(name, found))
                if len(rows) == AT_ONCE:
                    _put(connection, cut, rows)
                    rows = []
            _put(connection, cut, rows)


def _sums(name: str) -> sa.TableClause:
    """A table of sums, as far as it is read here."""
    return sa.table(
        name,
        sa.column("kind", sa.String()),
        sa.column("start_ms", sa.BigInteger()),
        *(sa.column(one, sa.Boolean() if one == "stream" else sa.Text()) for one in DIMENSIONS),
        *(sa.column(one, sa.BigInteger()) for one in MEASURES),
    )


def _row(cut: str, found: sa.RowMapping) -> dict[str, object]:
    group = {one: found[one] if one in CUTS[cut] else "" for one in DIMENSIONS[:-1]}
    group["stream"] = bool(found["stream"]) if "stream" in CUTS[cut] else False
    spelled = "\x1f".join("1" if part is True else "0" if part is False else part for part in (*group.values(), cut))
    key = hashlib.blake2b(spelled.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
    return {
        "cut": cut, "kind": found["kind"], "start_ms": found["start_ms"], "group_key": key, **group,
        **{one: int(found[one]) for one in MEASURES},
    }


def _put(connection: sa.Connection, cut: sa.Table, rows: list[dict[str, object]]) -> None:
    if not rows:
        return
    if connection.dialect.name != "postgresql":
        connection.execute(cut.insert(), rows)
        return
    names = list(rows[0])
    with connection.connection.cursor() as cursor, cursor.copy(f"COPY usage_cut ({', '.join(names)}) FROM STDIN") as copy:
        for row in rows:
            copy.write_row([row[name] for name in names])
