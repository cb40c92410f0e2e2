"""Dead letters: events that nobody could read or write, and what people decided about each of them.

A decision is a mark on the letter and a line of the audit; the letter itself is never changed or deleted, and an
event that is posted after all becomes an ordinary entry, once whatever is delivered again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import Select, func, or_, select
from sqlalchemy.exc import DataError

from app.clock import now
from app.domain import audit
from app.domain.errors import Conflict, Invalid, NotFound
from app.extensions import db
from app.ledger import posting
from app.ledger.entries import DeadLetter
from app.metering.usage import UsageEvent

if TYPE_CHECKING:
    from app.domain.person import Person

OPEN, POSTED, DISMISSED = STATES = ("open", "posted", "dismissed")
LONGEST_NOTE = 500


def search(*, state: str | None = None, search: str | None = None) -> Select[DeadLetter]:
    """The letters, newest first, narrowed to a state and to a part of their source or reason."""
    query = select(DeadLetter).order_by(DeadLetter.at_ms.desc(), DeadLetter.id.desc())
    if state:
        query = query.where(DeadLetter.state == state)
    if search:
        query = query.where(
            or_(
                DeadLetter.source.icontains(search, autoescape=True),
                DeadLetter.reason.icontains(search, autoescape=True),
            )
        )
    return query


def letter(id: str) -> DeadLetter:
    """The letter of that id; raises `NotFound`."""
    number = int(id) if id.isascii() and id.isdigit() and len(id) < 19 else None
    letter = db.session.get(DeadLetter, number) if number is not None else None
    if letter is None:
        raise NotFound("There is no such dead letter.")
    return letter


def open_count() -> int:
    """How many letters wait for a decision."""
    return db.session.scalar(select(func.count()).select_from(DeadLetter).where(DeadLetter.state == OPEN)) or 0


def post(item: DeadLetter, event: UsageEvent, *, by: Person) -> bool:
    """Posts what the letter tells; whether its entry was new. `event` is the letter's text, decoded.

    The meter's counters stay as they are: they were charged when the call ended, and where they were not, the
    reconciler finds the difference. Raises `Conflict` for a letter that is decided, `Invalid` when the database
    refuses it again.
    """
    _must_be_open(item)
    try:
        is_new = bool(posting.post_within(db.session.connection(), [event]))
    except (DataError, OverflowError, UnicodeError):
        raise Invalid("The database refuses this event again. Nothing was changed.") from None
    _decide(item, POSTED, by, None if is_new else "The books had it already.")
    audit.record(
        by, "dead_letter.post", "dead_letter", str(item.id), name=event.request_id[:255], after={"new": is_new}
    )
    return is_new


def dismiss(item: DeadLetter, *, by: Person, reason: str) -> None:
    """Decides that this event will not be booked, and says why. Raises `Conflict` or `Invalid`."""
    _must_be_open(item)
    reason = reason.strip()
    if not 1 <= len(reason) <= LONGEST_NOTE:
        raise Invalid(f"Say why, in at most {LONGEST_NOTE} characters.", "reason")
    _decide(item, DISMISSED, by, reason)
    audit.record(by, "dead_letter.dismiss", "dead_letter", str(item.id), name=item.source[:255], reason=reason)


def _must_be_open(item: DeadLetter) -> None:
    if item.state != OPEN:
        raise Conflict(f"This letter is {item.state} already, by {item.resolved_by}. Nothing was changed.")


def _decide(item: DeadLetter, state: str, by: Person, note: str | None) -> None:
    item.state, item.resolved_at, item.resolved_by, item.note = state, now(), by.username, note
