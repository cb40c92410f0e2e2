"""Invitations: a link with which somebody creates their own account, once and until it expires.

Only the link's digest is stored. The link is shown once to the admin who created it, and sent to the e-mail address if one
is given.
"""

from __future__ import annotations

import secrets as random_source
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Select, String, or_, select
from sqlalchemy.orm import Mapped, mapped_column

from app import current
from app.clock import now
from app.domain import audit, deliveries, identity, names
from app.domain.errors import Conflict, Invalid, NotFound
from app.domain.passwords import PasswordHash
from app.domain.person import ROLES, Person
from app.extensions import Base, db
from app.runtime.ids import new_id
from app.runtime.sealing import digest

LONGEST_DAYS = 90
STATUSES = ("open", "used", "expired", "withdrawn")


class Invitation(Base):
    """One invitation. Only the digest of its link is stored."""

    __tablename__ = "invitation"

    id: Mapped[str] = mapped_column(String(36), primary_key=True, default=new_id)
    digest: Mapped[str] = mapped_column(String(64), unique=True)
    email: Mapped[str | None]
    role: Mapped[str] = mapped_column(String(16), default="user")
    groups: Mapped[list[str]] = mapped_column(default=list)
    invited_by: Mapped[str] = mapped_column(String(64))
    created_at: Mapped[datetime] = mapped_column(default=now)
    expires_at: Mapped[datetime]
    used_at: Mapped[datetime | None]
    withdrawn_at: Mapped[datetime | None]
    person_id: Mapped[str | None] = mapped_column(String(36))

    @property
    def status(self) -> str:
        """open, used, withdrawn or expired."""
        if self.used_at:
            return "used"
        if self.withdrawn_at:
            return "withdrawn"
        return "expired" if self.expires_at <= now() else "open"

    def summary(self) -> dict[str, Any]:
        return {"email": self.email, "role": self.role, "groups": list(self.groups), "expires_at": str(self.expires_at)}


def search(*, search: str | None = None, status: str | None = None) -> Select[Invitation]:
    """A query of invitations, newest first, filtered by a part of the e-mail address or of the inviter, and by status."""
    query = select(Invitation).order_by(Invitation.id.desc())
    if search:
        query = query.where(
            or_(
                Invitation.email.icontains(search, autoescape=True),
                Invitation.invited_by.icontains(search, autoescape=True),
            )
        )
    waits = (Invitation.used_at.is_(None), Invitation.withdrawn_at.is_(None))
    match status:
        case "open":
            query = query.where(*waits, Invitation.expires_at > now())
        case "expired":
            query = query.where(*waits, Invitation.expires_at <= now())
        case "used":
            query = query.where(Invitation.used_at.is_not(None))
        case "withdrawn":
            query = query.where(Invitation.withdrawn_at.is_not(None))
    return query


def invitation(id: str) -> Invitation:
    invitation = db.session.get(Invitation, id)
    if invitation is None:
        raise NotFound("This invitation does not exist.")
    return invitation


def invite(
    *, by: Person, link: str, email: str | None = None, role: str = "user", groups: Sequence[str] = (), days: int = 7
) -> tuple[Invitation, str]:
    """Create an invitation; return it and its link, which is shown only now. `link` is the URL with `{token}` in it.

    It is sent by e-mail too if `email` is given and a mail server is configured. Raises `Invalid` naming the field.
    """
    email = names.checked_email(email) if email and email.strip() else None
    if role not in ROLES:
        raise Invalid(f"Choose one of {', '.join(ROLES)}.", "role")
    if not 1 <= days <= LONGEST_DAYS:
        raise Invalid(f"Enter 1 to {LONGEST_DAYS} days.", "days")
    token = random_source.token_urlsafe(32)
    invitation = Invitation(
        id=new_id(),
        digest=_digest(token),
        email=email,
        role=role,
        groups=names.checked_groups(groups),
        invited_by=by.username,
        expires_at=now() + timedelta(days=days),
    )
    db.session.add(invitation)
    db.session.flush()
    audit.record(by, "invitation.create", "invitation", invitation.id, name=email, after=invitation.summary())
    address = link.replace("{token}", token)
    if email:
        name = current.config().portal.name
        deliveries.mail(
            email,
            "invitation",
            f"You are invited to {name}",
            f"{by.username} invites you to {name}. Choose your username and password here:\n\n{address}\n\n"
            f"The link works once and expires at {invitation.expires_at:%Y-%m-%d %H:%M} UTC.",
            secret=True,
        )
    return invitation, address


def withdraw(invitation: Invitation, *, by: Person) -> None:
    """Withdraw an invitation; its link stops working. Repeating it changes nothing. Raises `Conflict` if it was used."""
    db.session.refresh(invitation, with_for_update=True)
    if invitation.used_at:
        raise Conflict("This invitation has already been used. Deactivate the person instead.")
    if invitation.withdrawn_at is None:
        invitation.withdrawn_at = now()
        audit.record(by, "invitation.withdraw", "invitation", invitation.id, name=invitation.email)


def opened_by(token: str) -> Invitation | None:
    """The open invitation with this token; None if it is unknown, used, withdrawn or expired."""
    invitation = _find(token)
    return invitation if invitation is not None and invitation.status == "open" else None


def accept(token: str, *, username: str, password: PasswordHash) -> Person:
    """Create the account of an invitation, with the username and password that the person chose. The link stops working.

    Raises `NotFound` if the invitation is not open, `Invalid` or `Conflict` for the username.
    """
    found = _find(token, lock=True)
    if found is None or found.status != "open":
        raise NotFound("This invitation is no longer valid. Ask for a new one.")
    person = identity.create(
        by=None, username=username, password=password, email=found.email, role=found.role, groups=found.groups
    )
    found.used_at, found.person_id = now(), person.id
    audit.record(person, "invitation.accept", "invitation", found.id, name=person.username)
    return person


def accept_by(token: str, person: Person) -> None:
    """Give a person who is signed in what an invitation is for, where the identity provider makes the accounts. The link
    stops working. Raises `NotFound` if the invitation is not open."""
    found = _find(token, lock=True)
    if found is None or found.status != "open":
        raise NotFound("This invitation is no longer valid. Ask for a new one.")
    role = found.role if person.role == "user" else person.role
    groups = list(dict.fromkeys((*person.groups, *found.groups)))
    identity.update(person, by=None, role=role, groups=groups)
    found.used_at, found.person_id = now(), person.id
    audit.record(person, "invitation.accept", "invitation", found.id, name=person.username)


def _find(token: str, *, lock: bool = False) -> Invitation | None:
    if len(token) > 200 or not token.isascii():
        return None
    query = select(Invitation).where(Invitation.digest == _digest(token))
    return db.session.scalar(query.with_for_update().execution_options(populate_existing=True) if lock else query)


def _digest(token: str) -> str:
    return digest(current.secrets().key_pepper, f"invitation {token}")
