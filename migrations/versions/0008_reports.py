"""Reports of much: indexes tell what is asked for beside where it is, and find teams, people and what failed.

Revision ID: 0008
Revises: 0007
"""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

TOLD = ["kind", "outcome", "stream", "prompt_tokens", "completion_tokens", "cost_nano", "duration_ms", "ttft_ms"]
SCOPES = {"person_id": ["model"], "key_id": ["person_id"], "team_id": [], "model": []}
FAILED = sa.text("outcome = 'error'")
OF_TEAMS = sa.text("team_id != ''")
LISTED = {"people": ("person", ["person_id"]), "models": ("model", ["model", "api_type"])}
OF_BILLS = sa.text("cut = 'payer' AND kind = 'month'")
OF_EACH = ["requests", "errors", "prompt_tokens", "completion_tokens", "cost_nano"]


def upgrade() -> None:
    for scope, more in SCOPES.items():
        errors = f"ix_usage_entry_errors_{scope}"
        op.create_index(errors, "usage_entry", [scope, "at_ms", "id"], sqlite_where=FAILED, postgresql_where=FAILED)
        _index_entries(scope, [*more, *TOLD])
    op.create_index(
        "ix_usage_cut_of_teams", "usage_cut", ["team_id", "kind", "start_ms"],
        sqlite_where=OF_TEAMS, postgresql_where=OF_TEAMS,
    )  # fmt: skip
    for name, (cut, dimensions) in LISTED.items():
        of_cut = sa.text(f"cut = '{cut}'")
        op.create_index(
            f"ix_usage_cut_{name}", "usage_cut", ["kind", "start_ms"],
            sqlite_where=of_cut, postgresql_where=of_cut, postgresql_include=[*dimensions, *OF_EACH],
        )  # fmt: skip
    op.create_index(
        "ix_usage_cut_bills", "usage_cut", ["start_ms"],
        sqlite_where=OF_BILLS, postgresql_where=OF_BILLS,
        postgresql_include=["person_id", "team_id", *OF_EACH, "cached_tokens"],
    )  # fmt: skip


def downgrade() -> None:
    op.drop_index("ix_usage_cut_bills", "usage_cut")
    for name in LISTED:
        op.drop_index(f"ix_usage_cut_{name}", "usage_cut")
    op.drop_index("ix_usage_cut_of_teams", "usage_cut")
    for scope in SCOPES:
        _index_entries(scope, [])
        op.drop_index(f"ix_usage_entry_errors_{scope}", "usage_entry")


def _index_entries(scope: str, told: list[str]) -> None:
    """Anew, with what it tells; SQLite's indexes tell nothing beside."""
    if op.get_bind().dialect.name == "postgresql":
        name = f"ix_usage_entry_{scope}_at_ms_id"
        op.drop_index(name, "usage_entry")
        op.create_index(name, "usage_entry", [scope, "at_ms", "id"], postgresql_include=told)
