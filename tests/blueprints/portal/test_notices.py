"""The bell and what is behind it: told, unread, read, and by e-mail too if somebody wants it."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
from flask import Flask

from app.domain import identity, notices
from app.extensions import db, transaction
from config import Mail
from tests.blueprints.portal.conftest import Browser
from tests.house import People

SignedIn = Callable[[str], Browser]


def tell(people: People, title: str, href: str | None = None) -> str:
    return transaction(notices.notify, people.owner, "test", title, "About <it>", href).id


def unread(people: People) -> int:
    db.session.rollback()
    return db.session.scalar(notices.unread_count(people.owner)) or 0


def test_the_bell_counts_what_is_unread_and_the_list_keeps_it_all(people: People, signed_in: SignedIn) -> None:
    owner = signed_in("owner")
    page = owner.get("/home").text
    assert 'aria-label="Notifications"' in page
    assert "No notices yet" in owner.get("/notices").text
    first = tell(people, "First")
    tell(people, "Second")
    assert 'aria-label="Notifications, 2 unread"' in owner.get("/keys").text
    page = owner.get("/notices").text
    assert page.index("Second") < page.index("First")
    assert "About &lt;it&gt;" in page
    assert owner.post(f"/notices/{first}/reading").status_code == 303
    assert 'aria-label="Notifications, 1 unread"' in owner.get("/home").text
    unread = owner.get("/notices?show=unread", fragment=True).text
    assert "Second" in unread
    assert "First" not in unread
    assert owner.post("/notices/reading").status_code == 303
    assert 'aria-label="Notifications"' in owner.get("/home").text
    assert "Nothing unread" in owner.get("/notices?show=unread").text
    assert "First" in owner.get("/notices").text


def test_opening_one_marks_it_and_goes_on_within_the_site(people: People, signed_in: SignedIn) -> None:
    owner = signed_in("owner")
    id = tell(people, "Go", "/models/small")
    answer = owner.post(f"/notices/{id}/reading", go="y", back="/notices?show=unread")
    assert answer.headers["Location"] == "/models/small"
    assert unread(people) == 0
    back = owner.post(f"/notices/{id}/reading", back="/notices?show=unread")
    assert back.headers["Location"] == "/notices?show=unread"
    elsewhere = tell(people, "Go", "https://evil.example/")
    assert owner.post(f"/notices/{elsewhere}/reading", go="y").headers["Location"] == "/"
    assert owner.post(f"/notices/{id}/reading", back="https://evil.example").headers["Location"] == "/notices"


def test_somebody_elses_notices_are_not_there(people: People, signed_in: SignedIn) -> None:
    id = tell(people, "Private")
    for name in ("stranger", "admin"):
        browser = signed_in(name)
        assert browser.post(f"/notices/{id}/reading").status_code == 404
        assert "Private" not in browser.get("/notices").text
        assert browser.post("/notices/reading").status_code == 303
    assert unread(people) == 1


def test_by_e_mail_is_each_persons_own_choice(app: Flask, people: People, signed_in: SignedIn) -> None:
    owner = signed_in("owner")
    assert "No mail server is set up" in owner.get("/notices").text
    app.config["PORTICO"] = msgspec.structs.replace(app.config["PORTICO"], mail=Mail(host="127.0.0.1"))
    assert "has no e-mail address" in owner.get("/notices").text
    transaction(identity.update, people.owner, by=people.admin, email="owner@example.org")
    assert "are also sent to" in owner.get("/notices").text
    assert owner.post("/notices/email").status_code == 303
    assert "Also send them to owner@example.org" in owner.get("/notices").text
    db.session.rollback()
    assert not identity.named("owner").email_notices
    assert owner.post("/notices/email", email="y").status_code == 303
    db.session.rollback()
    assert identity.named("owner").email_notices
