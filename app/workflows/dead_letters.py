"""Dead letters: usage events that could not be read or posted, and the decisions about them.

A decision sets the dead letter's state and writes an audit entry; the event itself is never changed or deleted. An event
that is posted after all becomes an ordinary ledger entry, once however often it is delivered.
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
    """A query of dead letters, newest first, filtered by state and by a part of their source or reason."""
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
    """The dead letter with this id. Raises `NotFound`."""
    number = int(id) if id.isascii() and id.isdigit() and len(id) < 19 else None
    letter = db.session.get(DeadLetter, number) if number is not None else None
    if letter is None:
        raise NotFound("This dead letter does not exist.")
    return letter


def open_count() -> int:
    """The number of dead letters without a decision."""
    return db.session.scalar(select(func.count()).select_from(DeadLetter).where(DeadLetter.state == OPEN)) or 0


def post(item: DeadLetter, event: UsageEvent, *, by: Person) -> bool:
    """Post a dead letter's event; return whether its ledger entry was new. `event` is the decoded event.

    The meter's counters stay as they are: they were charged when the call ended, and if not, reconciling finds the
    difference. Raises `Conflict` if it is already decided, `Invalid` if the database refuses the event again.
    """
    _must_be_open(item)
    try:
        is_new = bool(posting.post_within(db.session.connection(), [event]))
    except (DataError, OverflowError, UnicodeError):
        raise Invalid("The database refused this event again. Nothing was changed.") from None
    _decide(item, POSTED, by, None if is_new else "The ledger already had it.")
    audit.record(
        by, "dead_letter.post", "dead_letter", str(item.id), name=event.request_id[:255], after={"new": is_new}
    )
    return is_new


def dismiss(item: DeadLetter, *, by: Person, reason: str) -> None:
    """Dismiss a dead letter with a reason: its event is not posted. Raises `Conflict` or `Invalid`."""
    _must_be_open(item)
    reason = reason.strip()
    if not 1 <= len(reason) <= LONGEST_NOTE:
        raise Invalid(f"Enter a reason of at most {LONGEST_NOTE} characters.", "reason")
    _decide(item, DISMISSED, by, reason)
    audit.record(by, "dead_letter.dismiss", "dead_letter", str(item.id), name=item.source[:255], reason=reason)


def _must_be_open(item: DeadLetter) -> None:
    if item.state != OPEN:
        raise Conflict(f"{item.resolved_by} has already {item.state} this dead letter. Nothing was changed.")


def _decide(item: DeadLetter, state: str, by: Person, note: str | None) -> None:
    item.state, item.resolved_at, item.resolved_by, item.note = state, now(), by.username, note
