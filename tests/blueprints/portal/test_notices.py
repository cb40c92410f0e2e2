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
    assert "Notifications" in owner.page("/home").whole.links
    assert "No notifications yet" in owner.page("/notices").headings
    first = tell(people, "First")
    tell(people, "Second")
    assert owner.page("/keys").whole.link("Notifications, 2 unread").badge == "2"
    second, first_row = owner.page("/notices").rows
    assert second.cell("Notification") == "Unread Second About <it>"
    assert first_row.cell("Notification") == "Unread First About <it>"
    assert owner.post(f"/notices/{first}/reading").status_code == 303
    assert owner.page("/home").whole.link("Notifications, 1 unread").badge == "1"
    [unread] = owner.page("/notices?show=unread", fragment=True).rows
    assert "Second" in unread.cell("Notification")
    assert owner.post("/notices/reading").status_code == 303
    assert "Notifications" in owner.page("/home").whole.links
    assert "Nothing unread" in owner.page("/notices?show=unread").headings
    assert [row.cell("Notification") for row in owner.page("/notices").rows] == [
        "Second About <it>",
        "First About <it>",
    ]


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


def test_chosen_ones_are_marked_as_read_together(people: People, signed_in: SignedIn) -> None:
    owner = signed_in("owner")
    one, other, _ = tell(people, "One"), tell(people, "Other"), tell(people, "Third")
    assert owner.page("/notices").button("Mark selected as read")
    answer = owner.post("/notices/selection", ids=[one, other, "nothing"], back="/notices?show=unread")
    assert answer.headers["Location"] == "/notices?show=unread"
    assert unread(people) == 1
    assert signed_in("stranger").post("/notices/selection", ids=[one]).status_code == 303
    assert owner.post("/notices/selection").status_code == 303
    assert unread(people) == 1


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
    assert "No mail server is set up" in owner.page("/notices").section("Notifications by e-mail")
    app.config["PORTICO"] = msgspec.structs.replace(app.config["PORTICO"], mail=Mail(host="127.0.0.1"))
    assert "has no e-mail address" in owner.page("/notices").section("Notifications by e-mail")
    transaction(identity.update, people.owner, by=people.admin, email="owner@example.org")
    assert "are also sent to owner@example.org" in owner.page("/notices").section("Notifications by e-mail")
    assert owner.post("/notices/email").status_code == 303
    assert "Also send them to owner@example.org" in owner.page("/notices").section("Notifications by e-mail").buttons
    db.session.rollback()
    assert not identity.named("owner").email_notices
    assert owner.post("/notices/email", email="y").status_code == 303
    db.session.rollback()
    assert identity.named("owner").email_notices
