"""What is new for whoever reads a page: unread notices, what waits for an admin, and the banner that is up.

Every page tells it, and some pages tell it twice, so it is asked once and by one query.
"""

from __future__ import annotations

from typing import NamedTuple

from sqlalchemy import literal, select, true
from sqlalchemy.orm import aliased

from app.domain import announcements, notices, subscriptions
from app.domain.announcements import Announcement
from app.domain.person import Person
from app.extensions import db
from app.web.request_cache import once
from app.workflows import budget_requests


class News(NamedTuple):
    """Counts of notices and of requests that wait for a decision; the banner, or none."""

    unread: int
    subscriptions: int
    budgets: int
    announcement: Announcement | None

    @property
    def waiting(self) -> int:
        return self.subscriptions + self.budgets


def news(person: Person) -> News:
    """What is new as this request is answered. Who does not see everything has nothing to decide."""
    return once(f"news for {person.id}", lambda: _asked(person))


def _asked(person: Person) -> News:
    banner = aliased(Announcement, announcements.standing().subquery())
    decides = person.sees_everything
    return News._make(
        db.session.execute(
            select(
                notices.unread_count(person).scalar_subquery(),
                subscriptions.awaiting_decision_count().scalar_subquery() if decides else literal(0),
                budget_requests.pending_count().scalar_subquery() if decides else literal(0),
                banner,
            )
            .select_from(select(literal(1)).subquery("one"))
            .outerjoin(banner, true())
        ).one()
    )
