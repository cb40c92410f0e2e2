"""What is new for a reader: their own notices, what waits for who decides, and the banner that is up."""

from __future__ import annotations

from datetime import timedelta

import pytest
from flask import Flask
from sqlalchemy import event

from app.clock import now
from app.domain import announcements, budgets, notices, payers, subscriptions
from app.extensions import db, transaction
from app.pages.badges import Badges, badges
from app.workflows import budget_requests
from tests.house import People, make_model


@pytest.fixture
def busy(people: People) -> People:
    """Two notices of the owner's, one of them read; a request for a model and one for a budget; a banner."""
    for _ in range(2):
        notice = transaction(notices.notify, people.owner, "test.kind", "A title")
    transaction(notices.mark_read, notice)
    model = transaction(make_model, people.admin, restricted=True)
    transaction(subscriptions.request, people.owner, model, by=people.owner, justification="Research.")

    transaction(budgets.set_budget, "user", people.owner.id, by=people.admin, limit="1")
    asked = payers.named("user", "owner")
    transaction(budget_requests.ask, asked, by=people.owner, amount="1", lasting=False, reason="A report.")
    for person in (people.admin, people.auditor):
        transaction(notices.mark_all_read, person)
    transaction(
        announcements.put_up, by=people.admin, level="info", text="Tonight.", ends_at=now() + timedelta(hours=1)
    )
    return people


def test_each_reader_is_told_what_concerns_them(app: Flask, busy: People) -> None:
    def told(person: object) -> Badges:
        with app.test_request_context():
            return badges(person)  # type: ignore[arg-type]

    for person, unread, waits in ((busy.owner, 1, 0), (busy.stranger, 0, 0), (busy.admin, 0, 1), (busy.auditor, 0, 1)):
        found = told(person)
        assert (found.unread, found.subscriptions, found.budgets) == (unread, waits, waits)
        assert found.pending == 2 * waits
        assert found.announcement is not None and found.announcement.text == "Tonight."


def test_without_a_banner_the_counts_are_told_all_the_same(app: Flask, people: People) -> None:
    with app.test_request_context():
        assert badges(people.admin) == (0, 0, 0, None)


def test_a_request_asks_once(app: Flask, busy: People) -> None:
    asked: list[str] = []
    listener = lambda *values: asked.append(values[2])  # noqa: E731
    with app.test_request_context():
        assert busy.owner.id
        event.listen(db.engine, "before_cursor_execute", listener)
        try:
            for _ in range(3):
                badges(busy.owner)
        finally:
            event.remove(db.engine, "before_cursor_execute", listener)
    assert len(asked) == 1
