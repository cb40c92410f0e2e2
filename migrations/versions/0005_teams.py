"""Teams, their members and invitations; alerts of budgets, and requests for more.

Revision ID: 0005
Revises: 0004
"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

MOMENT = sa.DateTime(timezone=True)
COLUMNS = (
    ("budget", sa.Column("thresholds", sa.JSON(), nullable=False, server_default="[50, 80, 100]")),
    ("budget", sa.Column("action", sa.String(length=16), nullable=False, server_default="notify")),
    ("budget", sa.Column("action_percent", sa.BigInteger(), nullable=False, server_default="100")),
)


def upgrade() -> None:
    op.create_table(
        "team",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("name", sa.String(length=100), nullable=False),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("rpm", sa.BigInteger(), nullable=True),
        sa.Column("tpm", sa.BigInteger(), nullable=True),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_team")),
    )
    op.create_index("uq_team_name", "team", [sa.text("lower(name)")], unique=True)
    op.create_table(
        "membership",
        sa.Column("team_id", sa.String(length=36), nullable=False),
        sa.Column("person_id", sa.String(length=36), nullable=False),
        sa.Column("role", sa.String(length=8), nullable=False),
        sa.Column("joined_at", MOMENT, nullable=False),
        sa.ForeignKeyConstraint(["team_id"], ["team.id"], name=op.f("fk_membership_team_id_team"), ondelete="CASCADE"),
        sa.ForeignKeyConstraint(
            ["person_id"], ["person.id"], name=op.f("fk_membership_person_id_person"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("team_id", "person_id", name=op.f("pk_membership")),
    )
    op.create_index(op.f("ix_membership_person_id"), "membership", ["person_id"])
    op.create_table(
        "team_invitation",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("team_id", sa.String(length=36), nullable=False),
        sa.Column("person_id", sa.String(length=36), nullable=False),
        sa.Column("role", sa.String(length=8), nullable=False),
        sa.Column("invited_by", sa.String(length=64), nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("answered_at", MOMENT, nullable=True),
        sa.Column("answer", sa.String(length=16), nullable=True),
        sa.ForeignKeyConstraint(
            ["team_id"], ["team.id"], name=op.f("fk_team_invitation_team_id_team"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["person_id"], ["person.id"], name=op.f("fk_team_invitation_person_id_person"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_team_invitation")),
    )
    op.create_index(op.f("ix_team_invitation_team_id"), "team_invitation", ["team_id"])
    op.create_index(op.f("ix_team_invitation_person_id"), "team_invitation", ["person_id"])
    op.create_table(
        "budget_alert",
        sa.Column("scope_kind", sa.String(length=16), nullable=False),
        sa.Column("scope_id", sa.String(length=80), nullable=False),
        sa.Column("period", sa.String(length=64), nullable=False),
        sa.Column("threshold", sa.BigInteger(), nullable=False),
        sa.Column("spent_nano", sa.BigInteger(), nullable=False),
        sa.Column("limit_nano", sa.BigInteger(), nullable=False),
        sa.Column("at", MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("scope_kind", "scope_id", "period", "threshold", name=op.f("pk_budget_alert")),
    )
    op.create_index(op.f("ix_budget_alert_at"), "budget_alert", ["at"])
    op.create_table(
        "budget_request",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("scope_kind", sa.String(length=16), nullable=False),
        sa.Column("scope_id", sa.String(length=80), nullable=False),
        sa.Column("person_id", sa.String(length=36), nullable=False),
        sa.Column("amount_nano", sa.BigInteger(), nullable=False),
        sa.Column("lasting", sa.Boolean(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.Column("decided_by", sa.String(length=64), nullable=True),
        sa.Column("decided_at", MOMENT, nullable=True),
        sa.Column("decision_reason", sa.Text(), nullable=True),
        sa.Column("granted_nano", sa.BigInteger(), nullable=True),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.ForeignKeyConstraint(
            ["person_id"], ["person.id"], name=op.f("fk_budget_request_person_id_person"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_budget_request")),
    )
    op.create_index(op.f("ix_budget_request_person_id"), "budget_request", ["person_id"])
    op.create_index(op.f("ix_budget_request_status_created_at"), "budget_request", ["status", "created_at"])
    op.create_index(op.f("ix_budget_request_scope_kind_scope_id"), "budget_request", ["scope_kind", "scope_id"])
    op.create_index(op.f("ix_subscription_team_id"), "subscription", ["team_id"])
    op.create_index(op.f("ix_api_key_team_id"), "api_key", ["team_id"])
    op.create_index(op.f("ix_usage_entry_team_id_at_ms_id"), "usage_entry", ["team_id", "at_ms", "id"])
    op.create_index(op.f("ix_usage_rollup_team_id_kind_start_ms"), "usage_rollup", ["team_id", "kind", "start_ms"])
    for table, column in COLUMNS:
        op.add_column(table, column)


def downgrade() -> None:
    for table, column in reversed(COLUMNS):
        op.drop_column(table, column.name)
    op.drop_index(op.f("ix_usage_rollup_team_id_kind_start_ms"), table_name="usage_rollup")
    op.drop_index(op.f("ix_usage_entry_team_id_at_ms_id"), table_name="usage_entry")
    op.drop_index(op.f("ix_api_key_team_id"), table_name="api_key")
    op.drop_index(op.f("ix_subscription_team_id"), table_name="subscription")
    for name in ("budget_request", "budget_alert", "team_invitation", "membership", "team"):
        op.drop_table(name)
