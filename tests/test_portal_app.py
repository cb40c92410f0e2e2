"""The cold application: who is signed in, how its cookie is kept, and what its health says of the database."""

from __future__ import annotations

from pathlib import Path

import pytest
from flask import Flask, g, session
from flask_login import current_user

from app import create_app, portal_app
from app.domain import sessions
from app.extensions import transaction
from app.web.assets import address
from config import load
from tests.house import (  # noqa: F401
    People,
    app,
    config,
    database_url,
    home,
    inside,
    migrated,
    people,
    quick_hashes,
    wire,
)


def who(app: Flask, cookie: object) -> str | None:  # noqa: F811
    """The username of the person whom a request with this session's id is from."""
    g.pop("_login_user", None)
    with app.test_request_context("/"):
        if cookie is not None:
            session[sessions.COOKIE_FIELD] = cookie
        return current_user.username if current_user.is_authenticated else None


def test_a_session_is_its_persons_until_they_are_disabled(app: Flask, people: People) -> None:  # noqa: F811
    id = sessions.begin(people.owner.id, address="", agent="")
    assert who(app, id) == "owner"
    transaction(lambda: setattr(people.owner, "disabled", True))
    assert who(app, id) is None
    transaction(lambda: setattr(people.owner, "disabled", False))
    assert who(app, id) == "owner"
    sessions.end(id)
    assert who(app, id) is None


@pytest.mark.parametrize("cookie", [None, "", "unknown", 5, ["x"], "a\0b"])
def test_whatever_else_a_cookie_says_nobody_is_signed_in(app: Flask, people: People, cookie: object) -> None:  # noqa: F811
    assert who(app, cookie) is None


def test_a_session_of_a_person_who_is_gone_is_nobodys(app: Flask, people: People) -> None:  # noqa: F811
    assert who(app, sessions.begin("nobody", address="", agent="")) is None


@pytest.mark.parametrize("secure", [True, False])
def test_the_cookie_is_kept_from_scripts_and_from_other_sites(tmp_path: Path, secure: bool) -> None:
    environ = {"CONFIG_STORAGE_DATA_DIR": str(tmp_path), "CONFIG_AUTH_SECURE_COOKIES": str(secure).lower()}
    made = create_app(load(environ), {"public"})
    assert made.config["SESSION_COOKIE_HTTPONLY"] is True
    assert made.config["SESSION_COOKIE_SAMESITE"] == "Lax"
    assert made.config["SESSION_COOKIE_SECURE"] is secure


def test_without_doors_there_is_a_database_and_no_page(tmp_path: Path) -> None:
    made = create_app(load({"CONFIG_STORAGE_DATA_DIR": str(tmp_path)}), ())
    assert "static" not in made.view_functions
    assert not hasattr(made, "login_manager")
    with made.app_context():
        assert portal_app._database_answers()


def test_static_files_come_from_the_address_of_the_settings(tmp_path: Path, redis_url: str) -> None:
    settings = {"CONFIG_STORAGE_DATA_DIR": str(tmp_path), "CONFIG_REDIS_URL": redis_url}
    app = create_app(
        load(settings | {"CONFIG_SERVER_STATIC_URL": "https://cdn.example.com/portico"}), {"portal", "public"}
    )
    with app.test_request_context():
        assert address("portico.css").startswith("https://cdn.example.com/portico/static/")
        assert address("icons.svg").startswith("/static/")
