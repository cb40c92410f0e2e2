"""Invitations are made with a link that is shown once, listed without it, and withdrawn."""

from __future__ import annotations

import re
from collections.abc import Callable

from app.domain import invitations
from app.extensions import db
from tests.blueprints.portal.conftest import Browser
from tests.house import People
from tests.page import read

SignedIn = Callable[[str], Browser]


def made(browser: Browser, **form: str) -> str:
    """The link of a new invitation."""
    answer = browser.post("/admin/invitations", **{"email": "", "role": "user", "groups": "", "days": "7", **form})
    [link] = read(browser.secret_page(answer)).codes
    assert "This has already been shown" in browser.page(answer.headers["Location"]).headings
    return link


def test_the_link_is_shown_once_and_works_until_it_is_withdrawn(people: People, signed_in: SignedIn) -> None:
    admin = signed_in("admin")
    assert "No invitations yet" in admin.page("/admin/invitations").empty
    link = made(admin, email="ada@example.org", groups="lab, physics")
    assert re.fullmatch(r"http://localhost/invitation/[\w-]{43}", link)
    answer = admin.get("/admin/invitations")
    row = read(answer).row("ada@example.org")
    assert (row.cell("Role"), row.cell("Groups"), row.cell("Status")) == ("User", "lab, physics", "Open")
    assert link.rpartition("/")[2] not in answer.text
    assert admin.get(link.removeprefix("http://localhost")).status_code == 200
    [one] = db.session.scalars(invitations.search())
    assert admin.post(f"/admin/invitations/{one.id}/withdrawal").status_code == 303
    assert admin.get(link.removeprefix("http://localhost")).status_code == 404
    assert admin.page("/admin/invitations?status=withdrawn").row("ada@example.org").cell("Status") == "Withdrawn"
    assert "No invitation fits" in admin.page("/admin/invitations?status=open", fragment=True).empty


def test_a_bad_form_comes_back(people: People, signed_in: SignedIn) -> None:
    admin = signed_in("admin")
    for form, field, told in (
        ({"email": "nowhere"}, "E-mail", "Enter an e-mail address"),
        ({"days": "0"}, "Days until it ends", "Enter 1 to 90 days."),
        ({"days": ""}, "Days until it ends", "Enter a number of days."),
        ({"role": "emperor"}, "Role", "Not a valid choice"),
        ({"groups": "<b>"}, "Groups", "is not a valid group name"),
    ):
        given = {"email": "ada@example.org", "role": "user", "groups": "kept", "days": "7", **form}
        refused = admin.post("/admin/invitations", **given)
        page = read(refused)
        assert (refused.status_code, page.errors.keys()) == (422, {field}), form
        assert told in page.errors[field]
        assert page.field("Groups").value == given["groups"]
    db.session.rollback()
    assert db.session.scalars(invitations.search()).all() == []
