"""An invitation's link in the browser of who holds it."""

from __future__ import annotations

from flask import Flask
from flask.testing import FlaskClient

from app.domain import identity, invitations
from app.extensions import transaction
from tests.blueprints.public.test_sign_in import _csrf
from tests.house import PASSWORD, People
from tests.page import read


def invited(app: Flask, **values: object) -> str:
    with app.app_context():
        by = identity.named("admin")
        _, link = transaction(invitations.invite, by=by, link="/invitation/{token}", **values)
    return link


def accept(client: FlaskClient, link: str, **form: str) -> object:
    given = {"username": "ada", "password": PASSWORD, "again": PASSWORD, **form}
    return client.post(link, data={"csrf_token": _csrf(client, link), **given})


def test_who_holds_the_link_chooses_a_name_and_is_signed_in(app: Flask, visitors: People) -> None:
    link, client = invited(app, email="ada@example.org", role="admin-readonly"), app.test_client()
    asked = client.get(link)
    assert asked.status_code == 200
    assert "admin invites you as ada@example.org." in read(asked)
    assert asked.headers["Cache-Control"] == "no-store"
    answer = accept(client, link, role="admin", email="eve@example.org")
    assert answer.status_code == 303
    me = client.get("/api/auth/me").get_json()
    assert (me["username"], me["email"], me["role"]) == ("ada", "ada@example.org", "admin-readonly")
    again = app.test_client().get(link)
    assert again.status_code == 404
    assert read(again).heading == "This invitation is not valid"


def test_what_was_chosen_badly_may_be_chosen_again(app: Flask, visitors: People) -> None:
    link, client = invited(app), app.test_client()
    for form, status, at_fault, told in (
        ({"username": "owner"}, 409, "Username", "is taken"),
        ({"username": "a b"}, 422, "Username", "starting with a letter"),
        ({"password": "short", "again": "short"}, 422, "Password", "at least 12 characters"),
        ({"again": "something else"}, 422, "Password, again", "not the same"),
        ({"username": ""}, 422, "Username", "Choose a username"),
    ):
        refused = accept(client, link, **form)
        faults = {field.text: field.error for field in read(refused).fields if field.error}
        assert (refused.status_code, list(faults)) == (status, [at_fault]), form
        assert told in faults[at_fault]
        assert PASSWORD not in refused.text
    assert accept(client, link).status_code == 303


def test_a_link_that_opens_nothing_says_so_plainly(app: Flask, visitors: People) -> None:
    client = app.test_client()
    token = _csrf(client, "/sign-in")
    for answer in (client.get("/invitation/x"), client.post("/invitation/x", data={"csrf_token": token})):
        assert answer.status_code == 404
        assert "Ask whoever invited you" in read(answer)
