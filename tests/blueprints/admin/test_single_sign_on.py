"""The page that says what a sign-in would give, and accounts that admins link."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import msgspec
import pytest
from flask import Flask

from app.domain import identities, identity
from app.extensions import db
from config import Oidc
from tests.blueprints.portal.conftest import Browser
from tests.house import People
from tests.page import read

ISSUER = "https://id.example"


@pytest.fixture
def with_provider(app: Flask) -> Iterator[None]:
    kept = app.config["PORTICO"]
    oidc = Oidc(issuer=ISSUER, client_id="portico", name="Example ID", team_groups={"ml": "Machine learning"})
    app.config["PORTICO"] = msgspec.structs.replace(kept, oidc=oidc)
    yield
    app.config["PORTICO"] = kept


@pytest.mark.usefixtures("with_provider")
def test_an_admin_sees_what_a_sign_in_would_give(people: People, signed_in: Callable[[str], Browser]) -> None:
    admin, place = signed_in("admin"), "/admin/single-sign-on"
    assert admin.page(place).section("Settings").facts["Passwords"] == "Allowed beside it"
    claims = '{"sub": "s", "preferred_username": "ada", "groups": ["ml"]}'
    result = read(admin.post(place, claims=claims)).section("Result").facts
    assert (result["Account"], result["Username"], result["Joins"]) == ("A new account", "ada", "Machine learning")
    taken = read(admin.post(place, claims='{"sub": "s", "preferred_username": "owner"}'))
    assert taken.section("Result").facts["Account"] == "An account that must be linked first"
    for wrong in ("{", "[]", '{"groups": []}', ""):
        assert admin.post(place, claims=wrong).status_code == 422
    db.session.rollback()
    assert identity.find("ada") is None


def test_without_a_provider_the_page_says_how_to_get_one(people: People, signed_in: Callable[[str], Browser]) -> None:
    page = signed_in("admin").page("/admin/single-sign-on")
    assert page.reads("Single sign-on is off")


@pytest.mark.usefixtures("with_provider")
def test_an_admin_links_and_unlinks_a_subject(people: People, signed_in: Callable[[str], Browser]) -> None:
    admin, page = signed_in("admin"), "/admin/people/owner?section=sessions"
    assert admin.page(page).field("Issuer").value == ISSUER
    place = "/admin/people/owner/identities"
    assert admin.post(place, page=page, issuer=ISSUER, subject="s").status_code == 303
    assert admin.page(page).table("Linked subjects of owner").row_names == ["s"]
    again = admin.post("/admin/people/stranger/identities", page=page, issuer=ISSUER, subject="s")
    assert again.status_code == 409
    db.session.rollback()
    found = identities.find(ISSUER, "s")
    assert found is not None
    assert admin.post(f"{place}/{found.id}/unlinking", page=page).status_code == 303
    db.session.rollback()
    assert identities.find(ISSUER, "s") is None
