"""The announcement is above every page of everybody until it ends, is taken down, or is put away by a browser."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

from app.clock import now
from app.domain import announcements
from app.extensions import db, transaction
from tests.blueprints.portal.conftest import Browser
from tests.house import People
from tests.page import read

SignedIn = Callable[[str], Browser]


def put_up(admin: Browser, text: str = "Maintenance <tonight>", **form: str) -> None:
    assert admin.post("/admin/announcement", text=text, **{"level": "warning", **form}).status_code == 303


def test_it_is_above_every_page_until_it_is_taken_down(people: People, signed_in: SignedIn) -> None:
    admin, owner = signed_in("admin"), signed_in("owner")
    put_up(admin)
    for page in (owner.page("/home"), owner.page("/keys"), admin.page("/admin/people")):
        above = page.section("Announcement").alert
        assert (above.level, above.heading) == ("warning", "Maintenance <tonight>")
    put_up(admin, "Another")
    assert owner.page("/home").section("Announcement").alert.heading == "Another"
    assert admin.post("/admin/announcement/removal").status_code == 303
    assert "Announcement" not in owner.page("/home").sections


def test_it_ends_by_itself(people: People, signed_in: SignedIn) -> None:
    admin = signed_in("admin")
    put_up(admin, ends_at=(now() + timedelta(days=1)).strftime("%Y-%m-%dT%H:%M"))
    found = db.session.scalar(announcements.standing())
    assert found is not None
    transaction(lambda: setattr(db.session.merge(found), "ends_at", now() - timedelta(seconds=1)))
    assert "Announcement" not in admin.page("/home").sections


def test_a_browser_puts_it_away_and_sees_the_next_one(people: People, signed_in: SignedIn) -> None:
    admin, owner, stranger = signed_in("admin"), signed_in("owner"), signed_in("stranger")
    put_up(admin)
    found = db.session.scalar(announcements.standing())
    assert found is not None
    path = f"/announcements/{found.id}/dismissal?next=/keys"
    assert owner.page("/keys").section("Announcement").ways == [path]
    answer = owner.post(path, page="/keys")
    assert (answer.status_code, answer.headers["Location"]) == (303, "/keys")
    assert "HttpOnly" in str(answer.headers.getlist("Set-Cookie"))
    assert "Announcement" not in owner.page("/home").sections
    assert "Announcement" in stranger.page("/home").sections
    put_up(admin, "News")
    assert owner.page("/home").section("Announcement").alert.heading == "News"
    assert owner.post("/announcements/x/dismissal?next=https://evil.example").headers["Location"] == "/"


def test_a_bad_form_comes_back(people: People, signed_in: SignedIn) -> None:
    admin = signed_in("admin")
    for form, field, told in (
        ({"text": "", "level": "info"}, "Text", "Write what everybody is to read."),
        ({"text": "  ", "level": "info"}, "Text", "Enter 1 to 500 characters."),
        ({"text": "x" * 501, "level": "info"}, "Text", "500 characters"),
        ({"text": "x", "level": "panic"}, "Kind", "Not a valid choice"),
        ({"text": "Kept", "level": "info", "ends_at": "2001-01-01T00:00"}, "Ends", "in the future"),
    ):
        refused = admin.post("/admin/announcement", **form)
        page = read(refused)
        assert (refused.status_code, page.errors.keys()) == (422, {field}), form
        assert told in page.errors[field]
        assert page.field("Text").value == form["text"]
    db.session.rollback()
    assert db.session.scalar(announcements.standing()) is None
