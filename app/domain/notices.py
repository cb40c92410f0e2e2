"""Notices: what a person is told, in the portal's bell and, if they want it, by e-mail; the deployment by webhook.

A verb of the domain tells a person in its own transaction; mails and webhooks are letters that leave after the
commit, are tried again by the worker, and end as sent or dead, visible to admins.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

from sqlalchemy import ForeignKey, Index, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from app.extensions import Base, db, now
from app.ids import new_id

if TYPE_CHECKING:
    from app.domain.identity import Person


class Notice(Base):
    """One thing a person was told. `kind` is a dotted name for programs such as "subscription.approve"; `href` is a
    path of the portal where to go on."""

    __tablename__ = "notice"
    __table_args__ = (Index(None, "person_id", "read_at"), Index(None, "person_id", "id"))

    id: Mapped[str] = mapped_column(String(36), primary_key=True, default=new_id)
    person_id: Mapped[str] = mapped_column(ForeignKey("person.id", ondelete="CASCADE"))
    kind: Mapped[str] = mapped_column(String(64))
    title: Mapped[str] = mapped_column(String(200))
    text: Mapped[str] = mapped_column(Text, default="")
    href: Mapped[str | None] = mapped_column(String(500))
    at: Mapped[datetime] = mapped_column(default=now)
    read_at: Mapped[datetime | None]


class Delivery(Base):
    """One mail or webhook and how it went: waiting, sent or dead. `target` is an address of e-mail or of the web."""

    __tablename__ = "delivery"
    __table_args__ = (Index(None, "state", "at"),)

    id: Mapped[str] = mapped_column(String(36), primary_key=True, default=new_id)
    channel: Mapped[str] = mapped_column(String(8))  # email, webhook
    target: Mapped[str] = mapped_column(String(500))
    kind: Mapped[str] = mapped_column(String(64))
    payload: Mapped[dict[str, Any]] = mapped_column(default=dict)
    state: Mapped[str] = mapped_column(String(8), default="waiting")
    attempts: Mapped[int] = mapped_column(default=0)
    last_error: Mapped[str | None] = mapped_column(Text)
    at: Mapped[datetime] = mapped_column(default=now)
    done_at: Mapped[datetime | None]


class Announcement(Base):
    """A banner that admins put above every page until it ends or is taken down; each person may dismiss it."""

    __tablename__ = "announcement"

    id: Mapped[str] = mapped_column(String(36), primary_key=True, default=new_id)
    level: Mapped[str] = mapped_column(String(8), default="info")  # info, warning, danger
    text: Mapped[str] = mapped_column(Text)
    by: Mapped[str] = mapped_column(String(64))
    at: Mapped[datetime] = mapped_column(default=now)
    ends_at: Mapped[datetime | None]


def tell(person: Person, kind: str, title: str, text: str = "", href: str | None = None) -> Notice:
    """Tells a person something, in the transaction that makes it true."""
    made = Notice(person_id=person.id, kind=kind, title=title[:200], text=text, href=href)
    db.session.add(made)
    return made
