"""The badges of every page: unread notices, requests that wait for an admin, and the current announcement.

Every page shows them, some in two places. They are read once per request, by one statement.
"""

from __future__ import annotations

from typing import NamedTuple

from sqlalchemy import literal, select, true
from sqlalchemy.orm import aliased

from app.domain import announcements, notices, subscriptions
from app.domain.announcements import Announcement
from app.domain.person import Person
from app.extensions import db
from app.web.request_cache import cached
from app.workflows import budget_requests


class Badges(NamedTuple):
    """The number of unread notices and of pending requests, and the current announcement, if any."""

    unread: int
    subscriptions: int
    budgets: int
    announcement: Announcement | None

    @property
    def pending(self) -> int:
        return self.subscriptions + self.budgets


def badges(person: Person) -> Badges:
    """Returns the badges of a person. Someone who does not see everything has no requests to decide."""
    return cached(f"badges of {person.id}", lambda: _read(person))


def _read(person: Person) -> Badges:
    banner = aliased(Announcement, announcements.standing().subquery())
    sees_requests = person.sees_everything
    return Badges._make(
        db.session.execute(
            select(
                notices.unread_count(person).scalar_subquery(),
                subscriptions.awaiting_decision_count().scalar_subquery() if sees_requests else literal(0),
                budget_requests.pending_count().scalar_subquery() if sees_requests else literal(0),
                banner,
            )
            .select_from(select(literal(1)).subquery("one"))
            .outerjoin(banner, true())
        ).one()
    )
