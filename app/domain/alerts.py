"""Alerts: a budget crosses one of its thresholds, and those whom it concerns are told, once a period."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Index, String
from sqlalchemy.orm import Mapped, mapped_column

from app.extensions import Base, now


class BudgetAlert(Base):
    """A threshold that was crossed. Its key is what makes each alert come once a scope, period and threshold."""

    __tablename__ = "budget_alert"
    __table_args__ = (Index(None, "at"),)

    scope_kind: Mapped[str] = mapped_column(String(16), primary_key=True)
    scope_id: Mapped[str] = mapped_column(String(80), primary_key=True)
    period: Mapped[str] = mapped_column(
        String(64), primary_key=True
    )  # the counter's period name, e.g. "month-1764547200"
    threshold: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)  # percent of the limit
    spent_nano: Mapped[int]
    limit_nano: Mapped[int]
    at: Mapped[datetime] = mapped_column(default=now)
