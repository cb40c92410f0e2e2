"""Whom the identity provider knows as whom: an account is linked to an issuer and a subject, never to a name or an e-mail.

An account can have several. What the provider gave an account (groups) stands with its identity, so that the next sign-in
can take it back.
"""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import ForeignKey, Index, Select, String, delete, select
from sqlalchemy.orm import Mapped, mapped_column, relationship

from app.clock import now
from app.domain import audit
from app.domain.errors import Conflict, Invalid, NotFound
from app.domain.person import Person
from app.extensions import Base, db
from app.runtime.ids import new_id

LONGEST = 255


class Identity(Base):
    """One account's name at an identity provider. `groups` are those that its last sign-in gave."""

    __tablename__ = "identity"
    __table_args__ = (Index(None, "issuer", "subject", unique=True),)

    id: Mapped[str] = mapped_column(String(36), primary_key=True, default=new_id)
    person_id: Mapped[str] = mapped_column(ForeignKey("person.id", ondelete="CASCADE"), index=True)
    issuer: Mapped[str] = mapped_column(String(LONGEST))  # without a slash at its end
    subject: Mapped[str] = mapped_column(String(LONGEST))
    groups: Mapped[list[str]] = mapped_column(default=list)
    created_at: Mapped[datetime] = mapped_column(default=now)
    last_used_at: Mapped[datetime | None]

    person: Mapped[Person] = relationship("Person", lazy="joined")


def find(issuer: str, subject: str) -> Identity | None:
    """The identity of this subject; None if it is linked to no account."""
    query = select(Identity).where(Identity.issuer == issuer.rstrip("/"), Identity.subject == subject)
    return db.session.scalar(query)


def of(person: Person) -> Select[Identity]:
    """A query of an account's identities, oldest first."""
    return select(Identity).where(Identity.person_id == person.id).order_by(Identity.id)


def get_of(person: Person, id: str) -> Identity:
    """The account's identity with this id. Raises `NotFound`."""
    found = db.session.scalar(of(person).where(Identity.id == id))
    if found is None:
        raise NotFound("This identity does not exist.")
    return found


def link(person: Person, *, issuer: str, subject: str, by: Person | None) -> Identity:
    """Link an account. Raises `Invalid`, or `Conflict` if the subject is linked already."""
    issuer, subject = issuer.strip().rstrip("/"), subject.strip()
    for field, value in (("issuer", issuer), ("subject", subject)):
        if not 0 < len(value) <= LONGEST or not value.isprintable():
            raise Invalid(f"Enter 1 to {LONGEST} characters.", field)
    if find(issuer, subject) is not None:
        raise Conflict("This subject is linked to an account already.", "subject")
    identity = Identity(id=new_id(), person_id=person.id, person=person, issuer=issuer, subject=subject)
    db.session.add(identity)
    db.session.flush()
    audit.record(
        by, "identity.link", "person", person.id, name=person.username, facts={"issuer": issuer, "subject": subject}
    )
    return identity


def unlink(identity: Identity, *, by: Person | None) -> None:
    """Unlink an account: this subject can't sign in to it any more. Its sessions go on until they end."""
    person = identity.person
    facts = {"issuer": identity.issuer, "subject": identity.subject}
    audit.record(by, "identity.unlink", "person", person.id, name=person.username, facts=facts)
    db.session.delete(identity)
    db.session.flush()


def forget(person: Person) -> None:
    """Delete the identities of a person who is being deleted."""
    db.session.execute(delete(Identity).where(Identity.person_id == person.id))
