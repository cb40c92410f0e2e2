"""The person's own account: what it shows, where they are signed in, their tokens, and their data to take along."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from flask import Flask

from app import clock
from app.domain import credentials, providers, sessions, teams, tokens
from app.domain.audit import AuditEntry
from app.domain.catalog import Model
from app.extensions import db, transaction
from tests.blueprints.portal.conftest import Browser, use
from tests.house import People
from tests.page import read

SignedIn = Callable[[str], Browser]


def test_the_menu_at_the_name_leads_to_the_profile(people: People, signed_in: SignedIn) -> None:
    transaction(teams.create, by=people.owner, name="Research")
    owner = signed_in("owner")
    assert "/account" in owner.page("/home").whole.hrefs
    page = owner.page("/account")
    assert (page.facts["Username"], page.facts["Role"], page.facts["Teams"]) == ("owner", "User", "Research (owner)")
    assert page.link("Change password").href == "/password?next=/account"


def test_one_session_is_ended_then_all_others(people: People, signed_in: SignedIn) -> None:
    here, phone, desk = signed_in("owner"), signed_in("owner"), signed_in("owner")
    rows = here.page("/account?section=sessions").rows
    assert len(rows) == 3
    assert [("This browser" in row.cell("Browser"), len(row.buttons)) for row in rows].count((True, 0)) == 1
    all_others = "/account/sessions/ending"
    path, _ = (
        way for way in here.page("/account?section=sessions").ways if way.endswith("/ending") and way != all_others
    )
    assert signed_in("stranger").post(path).status_code == 404, "another person's"
    assert here.post(path).status_code == 303
    assert len(sessions.owned_by(people.owner.id)) == 2
    assert here.post(path).status_code == 404, "it is gone"
    assert here.post(all_others).status_code == 303
    assert len(sessions.owned_by(people.owner.id)) == 1
    assert here.get("/account").status_code == 200
    assert [browser.get("/account").status_code for browser in (phone, desk)] == [303, 303]
    db.session.rollback()
    assert db.session.query(AuditEntry).filter_by(action="session.end", actor="owner").count() == 2


def test_a_token_is_shown_once_and_works_until_it_is_revoked(people: People, signed_in: SignedIn) -> None:
    owner = signed_in("owner")
    led = owner.post("/account/tokens", name="nightly", scopes=["portal"], days="30")
    made = owner.secret_page(led)
    assert "This has already been shown" in owner.page(led.headers["Location"]).headings
    [text] = [code for code in read(made).codes if code.count(".") == 2]
    found = tokens.verify(text)
    assert found is not None and found.scopes == ("portal",)
    listed = owner.get("/account?section=tokens")
    assert text not in listed.text
    assert read(listed).row("nightly").cell("Scopes") == "portal"
    path = f"/account/tokens/{found.token.id}/revocation"
    stranger = signed_in("stranger")
    assert [stranger.get(path).status_code, stranger.post(path).status_code] == [404, 404]
    assert "nightly" in owner.page(path).text
    assert owner.post(path).status_code == 303
    db.session.rollback()
    assert tokens.verify(text) is None
    assert "No access tokens" in owner.page("/account?section=tokens").headings


@pytest.mark.parametrize(
    ("form", "label", "error"),
    [
        ({"scopes": "portal", "days": "30"}, "Name", "Enter a name."),
        ({"name": "x", "days": "30"}, "Scopes", "Choose at least one scope."),
        ({"name": "x", "scopes": "admin", "days": "30"}, "Scopes", "'admin' is not a valid choice for this field."),
        ({"name": "x", "scopes": "portal", "days": "9999"}, "Expires", "Not a valid choice."),
    ],
)
def test_a_token_that_cannot_be_names_the_field(
    people: People, signed_in: SignedIn, form: dict[str, str], label: str, error: str
) -> None:
    answer = signed_in("owner").post("/account/tokens", **form)
    assert answer.status_code == 422
    assert f"{label}: {error}" in read(answer).alert.texts
    assert db.session.scalars(tokens.live_of(people.owner)).all() == []


def test_the_time_zone_is_that_of_usage_and_the_theme_that_of_every_page(
    people: People,
    small: Model,
    signed_in: SignedIn,
) -> None:
    use(people.owner, small, clock.now_ms())
    owner = signed_in("owner")
    assert owner.post("/account/preferences", timezone="Asia/Tokyo", theme="dark").status_code == 303
    assert '<html lang="en" data-theme="dark" class="pf-v6-theme-dark">' in owner.get("/account").text
    page = owner.page("/account?section=preferences")
    assert page.field("Time zone").value == "Asia/Tokyo"
    assert '<html lang="en" data-theme="system">' in signed_in("stranger").get("/account").text
    assert owner.page("/usage").field("Time zone").chosen == ["Asia/Tokyo"]
    refused = owner.post("/account/preferences", timezone="Europe/Atlantis", theme="dark")
    assert refused.status_code == 422
    assert read(refused).field("Time zone").error == "Enter a time zone such as Europe/Berlin."


def test_choosing_e_mail_leads_back_to_where_it_was_chosen(people: People, signed_in: SignedIn) -> None:
    owner = signed_in("owner")
    here = "/account?section=preferences"
    assert owner.post("/notices/email", back=here, email="y").headers["Location"] == here
    assert owner.post("/notices/email", back="https://evil.example/").headers["Location"] == "/"
    assert owner.post("/notices/email").headers["Location"] == "/notices"


def test_ones_data_comes_as_a_file(app: Flask, people: People, signed_in: SignedIn) -> None:
    answer = signed_in("owner").get("/account/export")
    assert answer.headers["Content-Disposition"].startswith("attachment; filename=portico-owner-")
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.get_json()["profile"]["username"] == "owner"


def test_a_provider_credential_is_added_made_the_default_and_deleted(people: People, signed_in: SignedIn) -> None:
    owner, here = signed_in("owner"), "/account?section=credentials"
    assert "No provider credentials" in owner.page(here).headings
    assert "Add a credential" not in owner.page(here).headings  # no provider takes one
    config = {"api_key": "the-provider's-own-key", "personal_credentials": True}
    id = transaction(lambda: providers.create(by=None, name="Up", kind="openai", config=config)).id
    for name in ("first", "second"):
        form = {"provider": id, "name": name, "token": "my-own-token-of-1234"}
        assert owner.post("/account/credentials", **form).status_code == 303
    again = owner.post("/account/credentials", provider=id, name="first", token="my-own-token-of-1234")
    assert again.status_code == 422
    assert "my-own-token" not in again.text
    assert "Name: You have a credential named first for this provider." in read(again).alert.texts
    assert owner.page(here).row("first").cell("Provider") == "Up Default"
    db.session.rollback()
    second = db.session.scalars(credentials.of(people.owner)).first()
    assert second is not None
    path = f"/account/credentials/{second.id}"
    stranger = signed_in("stranger")
    assert [stranger.post(f"{path}/{act}").status_code for act in ("default", "deletion")] == [404, 404]
    assert owner.post(f"{path}/default").status_code == 303
    assert owner.page(here).row("second").cell("Provider") == "Up Default"
    assert "second" in owner.page(f"{path}/deletion").text
    assert owner.post(f"{path}/deletion").status_code == 303
    assert owner.page(here).row("first").cell("Provider") == "Up Default"
