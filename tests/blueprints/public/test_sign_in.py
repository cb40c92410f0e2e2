"""Signing in by a browser, and what a page without a person answers."""

import re
from datetime import timedelta

import pytest
import redis
from flask import Flask
from flask.testing import FlaskClient
from redis.backoff import NoBackoff
from redis.retry import Retry

from app import clock, current
from app.domain import identity
from app.extensions import transaction
from config import Config
from tests.house import PASSWORD, People
from tests.page import read


def _csrf(client: FlaskClient, path: str) -> str:
    found = re.search(r'name="csrf_token"[^>]*value="([^"]+)"', client.get(path).text)
    assert found
    return found.group(1)


def _sign_in(client: FlaskClient, username: str = "owner", password: str = PASSWORD, query: str = "") -> object:
    form = {"username": username, "password": password, "csrf_token": _csrf(client, "/sign-in")}
    return client.post(f"/sign-in{query}", data=form)


def test_a_person_signs_in_and_out(app: Flask, visitors: People) -> None:
    client = app.test_client()
    assert client.get("/").headers["Location"] == "/sign-in"
    answer = _sign_in(client, query="?next=/api/auth/me")
    assert (answer.status_code, answer.headers["Location"]) == (303, "/api/auth/me")
    assert client.get("/api/auth/me").get_json()["username"] == "owner"
    kept = client.get_cookie("portico_session")
    gone = client.post("/sign-out", data={"csrf_token": _csrf(client, "/password")})
    assert gone.status_code == 303
    assert client.get("/api/auth/me").status_code == 401
    client.set_cookie("portico_session", kept.value)  # the cookie of before opens nothing any more
    assert client.get("/api/auth/me").status_code == 401


def test_forms_without_their_token_are_refused(app: Flask, visitors: People) -> None:
    client = app.test_client()
    for path, back in (("/sign-in?next=/keys", "/keys"), ("/sign-out", None), ("/password", "/password")):
        answer = client.post(path, data={"username": "owner", "password": PASSWORD})
        assert (answer.status_code, answer.headers["Location"]) == (
            303,
            f"/sign-in?next={back}" if back else "/sign-in",
        )
    assert client.get("/api/auth/me").status_code == 401
    _sign_in(client)
    for path in ("/sign-out", "/password"):
        assert client.post(path, data={"current_password": PASSWORD}).status_code == 400
    assert client.get("/api/auth/me").status_code == 200


def test_the_cookie_tells_of_its_session_when_that_has_ended_by_itself(
    app: Flask, visitors: People, config: Config
) -> None:
    client = app.test_client()
    _sign_in(client)
    kept = client.get_cookie("portico_session")
    assert kept is not None
    assert kept.expires is not None
    assert kept.expires - clock.now() > timedelta(hours=config.auth.session_hours, days=6)


def test_what_is_wrong_is_told_in_the_same_words(app: Flask, visitors: People) -> None:
    client = app.test_client()
    texts = []
    for username, password in (("owner", "not the password"), ("nobody", "not the password"), ("a\0b", "x" * 300)):
        answer = _sign_in(client, username, password)
        assert answer.status_code == 422
        texts.append(read(answer).alert.heading)
    assert texts == ["The username or the password is wrong."] * 3


def test_the_eleventh_failure_is_throttled_plainly(app: Flask, visitors: People) -> None:
    client = app.test_client()
    for _ in range(10):
        _sign_in(client, password="not the password")
    answer = _sign_in(client)
    assert answer.status_code == 429
    assert "Wait a minute" in read(answer).alert
    assert answer.headers["Retry-After"]


def test_a_password_that_was_made_must_be_changed_first(app: Flask, visitors: People) -> None:
    with app.app_context():
        transaction(lambda: setattr(identity.named("owner"), "must_change_password", True))
    client = app.test_client()
    assert _sign_in(client).headers["Location"].startswith("/password")
    token = _csrf(client, "/password")
    new = "quite another password"
    form = {"current_password": PASSWORD, "new_password": new, "again": new, "csrf_token": token}
    for wrong in (
        {"again": "something else entirely"},
        {"current_password": "wrong"},
        {"new_password": "short", "again": "short"},
        {"new_password": PASSWORD, "again": PASSWORD},
    ):
        assert client.post("/password", data={**form, **wrong}).status_code == 422
    assert client.post("/password", data=form).status_code == 303
    assert client.get("/api/auth/me").get_json()["must_change_password"] is False
    assert _sign_in(app.test_client(), password=PASSWORD).status_code == 422
    assert _sign_in(app.test_client(), password=new).status_code == 303


def test_without_redis_everybody_is_signed_out_and_nothing_breaks(
    app: Flask, visitors: People, wire: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = app.test_client()
    _sign_in(client)
    gone = redis.Redis(unix_socket_path="/nonexistent", retry=Retry(NoBackoff(), 0))
    with monkeypatch.context() as patch:
        patch.setattr(current, "redis", lambda: gone)
        assert client.get("/").headers["Location"] == "/sign-in"
        assert _sign_in(client).status_code == 503
    wire.flushall()
    assert client.get("/").headers["Location"] == "/sign-in"


def test_pages_bear_a_strict_policy_and_are_not_stored(app: Flask, visitors: People) -> None:
    answer = app.test_client().get("/sign-in")
    assert answer.status_code == 200
    assert "unsafe" not in answer.headers["Content-Security-Policy"]
    assert answer.headers["Cache-Control"] == "no-store"
    missing = app.test_client().get("/nothing-here")
    assert missing.status_code == 404
    assert read(missing).heading == "Page not found"
