"""Notices: what a person is told, in the portal's bell and, if they want it, by e-mail; the deployment by webhook.

A verb of the domain tells a person in its own transaction; mails and webhooks are deliveries that leave after it.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any

from sqlalchemy import ForeignKey, Index, Select, String, Text, func, select, update
from sqlalchemy.orm import Mapped, mapped_column

from app import current
from app.clock import now
from app.domain import deliveries
from app.domain.errors import NotFound
from app.domain.person import Person
from app.extensions import Base, db
from app.runtime.ids import new_id


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


def notify(
    person: Person, kind: str, title: str, text: str = "", href: str | None = None, *, by_webhook: bool = True
) -> Notice:
    """Tells a person something, in the transaction that makes it true; by e-mail and webhook once that is committed."""
    notice = Notice(id=new_id(), person_id=person.id, kind=kind, title=title[:200], text=text, href=href, at=now())
    db.session.add(notice)
    config = current.config()
    address = f"{config.base_url}{href}" if href else None
    if person.email and person.email_notices and not person.disabled:
        words = [f"Hello {person.username},", text or title, *([address] if address else [])]
        words.append(f"{config.portal.name} sends you notices by e-mail. Change that at {config.base_url}/notices.")
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
    """Tells one thing to several people, and the webhook once, also when it concerns nobody; `about` goes along there
    for programs."""
    told = []
    for person in people:
        notify(person, kind, title, text, href, by_webhook=False)
        told.append(person.username)
    deliveries.webhook(
        {
            "id": new_id(),
            "kind": kind,
            "at": now().isoformat().replace("+00:00", "Z"),
            "people": told,
            "title": title,
            "text": text,
            "href": f"{current.config().base_url}{href}",
            **(about or {}),
        }
    )


def addressed_to(person: Person, *, unread: bool = False) -> Select[Notice]:
    """What a person was told, newest first."""
    query = select(Notice).where(Notice.person_id == person.id).order_by(Notice.id.desc())
    return query.where(Notice.read_at.is_(None)) if unread else query


def unread_count(person: Person) -> Select[int]:
    """How many notices a person has not read."""
    return select(func.count()).select_from(Notice).where(Notice.person_id == person.id, Notice.read_at.is_(None))


def get_visible(person: Person, id: str) -> Notice:
    """The person's own notice of that id; raises `NotFound`."""
    notice = db.session.scalar(addressed_to(person).where(Notice.id == id))
    if notice is None:
        raise NotFound("There is no such notice.")
    return notice


def mark_read(notice: Notice) -> None:
    """Marks a notice as read; doing it again changes nothing."""
    if notice.read_at is None:
        notice.read_at = now()


def mark_all_read(person: Person) -> None:
    """Marks everything that a person was told so far as read."""
    unread = update(Notice).where(Notice.person_id == person.id, Notice.read_at.is_(None))
    db.session.execute(unread.values(read_at=now()))


def choose(person: Person, *, email: bool) -> None:
    """Whether the person wants their notices by e-mail too."""
    person.email_notices = email
