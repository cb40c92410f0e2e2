"""Invitations are made with a link that is shown once, listed without it, and withdrawn."""

from __future__ import annotations

import re
from collections.abc import Callable

from app.domain import invitations
from app.extensions import db
from tests.blueprints.portal.conftest import Browser
from tests.house import People

SignedIn = Callable[[str], Browser]


def made(browser: Browser, **form: str) -> str:
    """The link of a new invitation."""
    answer = browser.post("/admin/invitations", **{"email": "", "role": "user", "groups": "", "days": "7", **form})
    assert answer.status_code == 201, answer.text
    assert answer.headers["Cache-Control"] == "no-store"
    found = re.search(r'id="invitation-link">([^<]+)<', answer.text)
    assert found
    return found[1]


def test_the_link_is_shown_once_and_works_until_it_is_withdrawn(people: People, signed_in: SignedIn) -> None:
    admin = signed_in("admin")
    assert "No invitations yet" in admin.get("/admin/invitations").text
    link = made(admin, email="ada@example.org", groups="lab, physics")
    assert re.fullmatch(r"http://localhost/invitation/[\w-]{43}", link)
    page = admin.get("/admin/invitations").text
    assert "ada@example.org" in page
    assert "lab, physics" in page
    assert link.rpartition("/")[2] not in page
    assert admin.get(link.removeprefix("http://localhost")).status_code == 200
    [one] = db.session.scalars(invitations.search())
    assert admin.post(f"/admin/invitations/{one.id}/withdrawal").status_code == 303
    assert admin.get(link.removeprefix("http://localhost")).status_code == 404
    assert "Withdrawn" in admin.get("/admin/invitations?status=withdrawn").text
    assert "No invitation fits" in admin.get("/admin/invitations?status=open", fragment=True).text


def test_a_bad_form_comes_back(people: People, signed_in: SignedIn) -> None:
    admin = signed_in("admin")
    for form, told in (
        ({"email": "nowhere"}, "Give an e-mail address"),
        ({"days": "0"}, "Give 1 to 90 days."),
        ({"days": ""}, "Give a number of days."),
        ({"role": "emperor"}, "Not a valid choice"),
        ({"groups": "<b>"}, "cannot be a group"),
    ):
        given = {"email": "ada@example.org", "role": "user", "groups": "kept", "days": "7", **form}
        refused = admin.post("/admin/invitations", **given)
        assert (refused.status_code, told in refused.text) == (422, True), form
    db.session.rollback()
    assert db.session.scalars(invitations.search()).all() == []
