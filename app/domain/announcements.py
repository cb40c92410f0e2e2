"""Announcements: admins publish one banner above every page until it expires or is removed; each person can dismiss it."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import Select, String, Text, or_, select
from sqlalchemy.orm import Mapped, mapped_column

from app.clock import now
from app.domain import audit
from app.domain.errors import Invalid
from app.domain.person import Person
from app.extensions import Base, db
from app.runtime.ids import new_id

LEVELS = ("info", "warning", "danger")
LONGEST_TEXT = 500


class Announcement(Base):
    """One banner. It is shown until `ends_at` or until it is removed or replaced."""

    __tablename__ = "announcement"

    id: Mapped[str] = mapped_column(String(36), primary_key=True, default=new_id)
    level: Mapped[str] = mapped_column(String(8), default="info")  # info, warning, danger
    text: Mapped[str] = mapped_column(Text)
    by: Mapped[str] = mapped_column(String(64))
    at: Mapped[datetime] = mapped_column(default=now)
    ends_at: Mapped[datetime | None]

    def summary(self) -> dict[str, Any]:
        return {"level": self.level, "text": self.text, "ends_at": str(self.ends_at) if self.ends_at else None}


def standing() -> Select[Announcement]:
    """A query of the banner that is shown now: at most one row."""
    return (
        select(Announcement)
        .where(or_(Announcement.ends_at.is_(None), Announcement.ends_at > now()))
        .order_by(Announcement.id.desc())
        .limit(1)
    )


def put_up(*, by: Person, level: str, text: str, ends_at: datetime | None = None) -> Announcement:
    """Publish a banner, which replaces the current one. Raises `Invalid` naming the field."""
    text = text.strip()
    if level not in LEVELS:
        raise Invalid(f"Choose one of {', '.join(LEVELS)}.", "level")
    if not 1 <= len(text) <= LONGEST_TEXT:
        raise Invalid(f"Enter 1 to {LONGEST_TEXT} characters.", "text")
    if ends_at is not None and ends_at <= now():
        raise Invalid("Enter a time in the future.", "ends_at")
    _end()
    announcement = Announcement(id=new_id(), level=level, text=text, by=by.username, ends_at=ends_at)
    db.session.add(announcement)
    audit.record(by, "announcement.put_up", "announcement", announcement.id, after=announcement.summary())
    return announcement


def take_down(*, by: Person) -> bool:
    """Remove the banner; return whether there was one."""
    ended = _end()
    if ended is not None:
        audit.record(by, "announcement.take_down", "announcement", ended.id, before=ended.summary(), after={})
    return ended is not None


def _end() -> Announcement | None:
    announcement = db.session.scalar(standing())
    if announcement is not None:
        announcement.ends_at = now()
    return announcement
