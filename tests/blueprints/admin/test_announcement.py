"""The announcement is above every page of everybody until it ends, is taken down, or is put away by a browser."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

from app.clock import now
from app.domain import announcements
from app.extensions import db, transaction
from tests.blueprints.portal.conftest import Browser
from tests.house import People

SignedIn = Callable[[str], Browser]


def put_up(admin: Browser, text: str = "Maintenance <tonight>", **form: str) -> None:
    assert admin.post("/admin/announcement", text=text, **{"level": "warning", **form}).status_code == 303


def test_it_is_above_every_page_until_it_is_taken_down(people: People, signed_in: SignedIn) -> None:
    admin, owner = signed_in("admin"), signed_in("owner")
    put_up(admin)
    for page in (owner.get("/home"), owner.get("/keys"), admin.get("/admin/people")):
        assert 'class="announcement"' in page.text
        assert "Maintenance &lt;tonight&gt;" in page.text
    put_up(admin, "Another")
    page = owner.get("/home").text
    assert "Another" in page
    assert "Maintenance" not in page
    assert admin.post("/admin/announcement/removal").status_code == 303
    assert 'class="announcement"' not in owner.get("/home").text


def test_it_ends_by_itself(people: People, signed_in: SignedIn) -> None:
    admin = signed_in("admin")
    put_up(admin, ends_at=(now() + timedelta(days=1)).strftime("%Y-%m-%dT%H:%M"))
    found = db.session.scalar(announcements.standing())
    assert found is not None
    transaction(lambda: setattr(db.session.merge(found), "ends_at", now() - timedelta(seconds=1)))
    assert 'class="announcement"' not in admin.get("/home").text


def test_a_browser_puts_it_away_and_sees_the_next_one(people: People, signed_in: SignedIn) -> None:
    admin, owner, stranger = signed_in("admin"), signed_in("owner"), signed_in("stranger")
    put_up(admin)
    found = db.session.scalar(announcements.standing())
    assert found is not None
    path = f"/announcements/{found.id}/dismissal?next=/keys"
    assert path in owner.get("/keys").text
    answer = owner.post(path, page="/keys")
    assert (answer.status_code, answer.headers["Location"]) == (303, "/keys")
    assert "HttpOnly" in str(answer.headers.getlist("Set-Cookie"))
    assert 'class="announcement"' not in owner.get("/home").text
    assert 'class="announcement"' in stranger.get("/home").text
    put_up(admin, "News")
    assert "News" in owner.get("/home").text
    assert owner.post("/announcements/x/dismissal?next=https://evil.example").headers["Location"] == "/"


def test_a_bad_form_comes_back(people: People, signed_in: SignedIn) -> None:
    admin = signed_in("admin")
    for form, told in (
        ({"text": "", "level": "info"}, "Write what everybody is to read."),
        ({"text": "  ", "level": "info"}, "Write 1 to 500 characters."),
        ({"text": "x" * 501, "level": "info"}, "500 characters"),
        ({"text": "x", "level": "panic"}, "Not a valid choice"),
        ({"text": "Kept", "level": "info", "ends_at": "2001-01-01T00:00"}, "in the future"),
    ):
        refused = admin.post("/admin/announcement", **form)
        assert (refused.status_code, told in refused.text) == (422, True), form
    db.session.rollback()
    assert db.session.scalar(announcements.standing()) is None
