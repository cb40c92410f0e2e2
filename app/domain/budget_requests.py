"""Asking for more: a person asks that a budget be raised, once or lastingly, and somebody who may decides.

A lasting grant raises the limit. A grant for once is a credit: an entry of the books that gives the running period of
that one budget so much room, and changes nothing else.
"""

from __future__ import annotations

from datetime import datetime
from typing import Literal, get_args

from sqlalchemy import ForeignKey, Index, String, Text
from sqlalchemy.orm import Mapped, mapped_column, relationship

from app.domain.identity import Person
from app.extensions import Base, now
from app.ids import new_id

Status = Literal["pending", "granted", "denied", "withdrawn"]
STATUSES: tuple[Status, ...] = get_args(Status)


class BudgetRequest(Base):
    """Somebody asks for `amount_nano` more in a scope's budget: each period from now on if `lasting`, else once."""

    __tablename__ = "budget_request"
    __table_args__ = (Index(None, "status", "created_at"), Index(None, "scope_kind", "scope_id"))

    id: Mapped[str] = mapped_column(String(36), primary_key=True, default=new_id)
    scope_kind: Mapped[str] = mapped_column(String(16))
    scope_id: Mapped[str] = mapped_column(String(80))
    person_id: Mapped[str] = mapped_column(ForeignKey("person.id", ondelete="CASCADE"), index=True)
    amount_nano: Mapped[int]
    lasting: Mapped[bool]
    reason: Mapped[str] = mapped_column(Text)
    status: Mapped[str] = mapped_column(String(16), default="pending")
    decided_by: Mapped[str | None] = mapped_column(String(64))
    decided_at: Mapped[datetime | None]
    decision_reason: Mapped[str | None] = mapped_column(Text)
    granted_nano: Mapped[int | None]
    created_at: Mapped[datetime] = mapped_column(default=now)

    person: Mapped[Person] = relationship(lazy="joined")
