"""Notifications: messages to a person in the portal and, if they want it, by e-mail; the webhook gets them too.

A domain verb creates them in its own transaction; e-mails and webhook calls are deliveries, sent after the commit.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, cast

from sqlalchemy import CursorResult, ForeignKey, Index, Select, String, Text, func, select, update
from sqlalchemy.orm import Mapped, mapped_column

from app import current
from app.clock import now
from app.domain import deliveries
from app.domain.errors import NotFound
from app.domain.person import Person
from app.extensions import Base, db
from app.runtime.ids import new_id


class Notice(Base):
    """One notification. `kind` is a dotted name for programs such as "subscription.approve"; `href` is the path of the
    portal page that it links to."""

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


def notify(
    person: Person, kind: str, title: str, text: str = "", href: str | None = None, *, by_webhook: bool = True
) -> Notice:
    """Notify a person in the current transaction; e-mail and webhook follow after the commit."""
    notice = Notice(id=new_id(), person_id=person.id, kind=kind, title=title[:200], text=text, href=href, at=now())
    db.session.add(notice)
    config = current.config()
    address = f"{config.base_url}{href}" if href else None
    if person.email and person.email_notices and not person.disabled:
        words = [f"Hello {person.username},", text or title, *([address] if address else [])]
        words.append(
            f"{config.portal.name} sends you notifications by e-mail. Change this at {config.base_url}/notices."
        )
        deliveries.mail(person.email, kind, f"{config.portal.name}: {title[:200]}", "\n\n".join(words))
    if by_webhook:
        deliveries.webhook(
            {
                "id": notice.id,
                "kind": kind,
                "at": notice.at.isoformat().replace("+00:00", "Z"),
                "person": person.username,
                "title": notice.title,
                "text": text,
                "href": address,
            }
        )
    return notice


def notify_all(
    people: Iterable[Person], kind: str, title: str, text: str, href: str, *, about: dict[str, Any] | None = None
) -> None:
    """Notify several people, and call the webhook once, even if `people` is empty; `about` adds data for programs to the
    webhook's event."""
    usernames = []
    for person in people:
        notify(person, kind, title, text, href, by_webhook=False)
        usernames.append(person.username)
    deliveries.webhook(
        {
            "id": new_id(),
            "kind": kind,
            "at": now().isoformat().replace("+00:00", "Z"),
            "people": usernames,
            "title": title,
            "text": text,
            "href": f"{current.config().base_url}{href}",
            **(about or {}),
        }
    )


def addressed_to(person: Person, *, unread: bool = False) -> Select[Notice]:
    """A query of a person's notifications, newest first."""
    query = select(Notice).where(Notice.person_id == person.id).order_by(Notice.id.desc())
    return query.where(Notice.read_at.is_(None)) if unread else query


def unread_count(person: Person) -> Select[int]:
    """A query of the number of a person's unread notifications."""
    return select(func.count()).select_from(Notice).where(Notice.person_id == person.id, Notice.read_at.is_(None))


def get_visible(person: Person, id: str) -> Notice:
    """The person's own notification with this id. Raises `NotFound`."""
    notice = db.session.scalar(addressed_to(person).where(Notice.id == id))
    if notice is None:
        raise NotFound("This notification does not exist.")
    return notice


def mark_read(notice: Notice) -> None:
    """Mark a notification as read. Repeating it changes nothing."""
    if notice.read_at is None:
        notice.read_at = now()


def mark_all_read(person: Person) -> None:
    """Mark all of a person's notifications as read."""
    unread = update(Notice).where(Notice.person_id == person.id, Notice.read_at.is_(None))
    db.session.execute(unread.values(read_at=now()))


def mark_selected_read(person: Person, ids: Sequence[str]) -> int:
    """Mark those of a person's notifications with these ids as read. Returns how many were unread."""
    unread = update(Notice).where(Notice.person_id == person.id, Notice.read_at.is_(None), Notice.id.in_(ids))
    result = cast("CursorResult[Any]", db.session.execute(unread.values(read_at=now())))
    return result.rowcount


def choose(person: Person, *, email: bool) -> None:
    """Turn a person's notifications by e-mail on or off."""
    person.email_notices = email
