"""Approval rules: which requests for restricted models need no admin, and with which budget they are approved.

A rule fits when everything that it names fits: the person's role, a group of theirs, and the model's prices. The
first fitting rule, in their order, approves; without one the request waits.
"""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import String
from sqlalchemy.orm import Mapped, mapped_column

from app.extensions import Base, now
from app.ids import new_id


class ApprovalRule(Base):
    """One rule. Absent conditions fit everybody; prices are nano-units a million tokens, the budget nano-units."""

    __tablename__ = "approval_rule"

    id: Mapped[str] = mapped_column(String(36), primary_key=True, default=new_id)
    name: Mapped[str] = mapped_column(String(100))
    position: Mapped[int] = mapped_column(default=0)
    active: Mapped[bool] = mapped_column(default=True)
    role: Mapped[str | None] = mapped_column(String(16))
    group: Mapped[str | None] = mapped_column("group_name", String(100))
    most_input_per_mtok: Mapped[int | None]
    most_output_per_mtok: Mapped[int | None]
    budget_limit_nano: Mapped[int | None]
    budget_period: Mapped[str | None] = mapped_column(String(8))
    days: Mapped[int | None]  # how long an approval lasts; None for as long as it is not ended
    created_at: Mapped[datetime] = mapped_column(default=now)
