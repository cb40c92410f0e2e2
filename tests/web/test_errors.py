"""Error pages: a plain sentence, the name of the request, and a way on, whatever went wrong."""

from __future__ import annotations

import errno
import logging
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import redis
from flask import Flask, abort
from redis.exceptions import ReadOnlyError, ResponseError
from sqlalchemy.exc import OperationalError
from sqlalchemy.exc import TimeoutError as NoConnection

from app.domain.errors import Throttled
from app.pages import menu
from config import Config
from tests.blueprints.portal.conftest import Browser, signed_in, token_of  # noqa: F401
from tests.house import (  # noqa: F401
    PASSWORD,
    People,
    app,
    configured,
    database_url,
    home,
    inside,
    migrated,
    people,
    quick_hashes,
    valkey_url,
    wire,
)
from tests.page import read

SignedIn = Callable[[str], Browser]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("refusals")


@pytest.fixture
def config(place: Path, valkey_url: str, database_url: str) -> Config:  # noqa: F811
    """Settings like nobody else's: the application gets pages that no other test may see."""
    return configured(place, valkey_url, database_url, "portal,admin,public")


@pytest.fixture
def failing(app: Flask) -> Flask:  # noqa: F811
    """An application with pages that fail in every way."""

    def fail(code: int) -> str:
        match code:
            case 429:
                raise Throttled("Too many of them.", 7)
            case 500:
                raise RuntimeError("a secret detail")
            case 503:
                raise OperationalError("SELECT a secret detail", None, Exception("gone"))
        abort(code)

    app.config["PROPAGATE_EXCEPTIONS"] = False
    app.config["TESTING"] = False
    serve(app, "/fail/<int:code>", fail)
    return app


def serve(app: Flask, path: str, view: Callable[..., str | None]) -> None:
    """Puts a page into an application that serves other tests of this module too."""
    if path not in app.view_functions:
        app.url_map.add(app.url_rule_class(path, endpoint=path))
    app.view_functions[path] = view


@pytest.mark.parametrize("code", [400, 401, 403, 404, 405, 413, 429, 500, 503])
def test_an_error_page_names_its_request_and_leads_on(
    failing: Flask,
    people: People,
    signed_in: SignedIn,
    code: int,  # noqa: F811
) -> None:
    owner = signed_in("owner")
    answer = owner.get(f"/fail/{code}")
    assert answer.status_code == code
    name = answer.headers["X-Request-ID"]
    assert re.fullmatch(r"[0-9a-f-]{36}", name)
    page = read(answer)
    assert f"Error {code} · Request {name}" in page.texts
    assert page.button("Copy request id").node.attributes["data-copy"] == name
    assert page.link("Sign in" if code == 401 else "Go to the start page").href == ("/sign-in" if code == 401 else "/")
    assert "a secret detail" not in answer.text
    assert answer.headers["Cache-Control"] == "no-store"
    if code == 429:
        assert answer.headers["Retry-After"] == "7"
        assert "Try again in 7 seconds." in page


@pytest.mark.parametrize(("code", "has_menu"), [(403, True), (404, True), (500, True), (503, False)])
def test_an_error_page_keeps_the_menu_unless_a_store_is_away(
    failing: Flask,
    people: People,
    signed_in: SignedIn,
    code: int,
    has_menu: bool,  # noqa: F811
) -> None:
    page = signed_in("owner").page(f"/fail/{code}", status=code)
    assert ("/keys" in page.whole.hrefs) is has_menu
    assert page.heading
    assert "/keys" not in read(failing.test_client().get(f"/fail/{code}")).whole.hrefs, "who is not signed in has none"


def test_a_fault_of_the_menu_itself_costs_only_the_menu(
    failing: Flask,
    people: People,
    signed_in: SignedIn,
    monkeypatch: pytest.MonkeyPatch,  # noqa: F811
) -> None:
    def broken(_: object) -> None:
        raise RuntimeError("a secret detail")

    owner = signed_in("owner")
    monkeypatch.setattr(menu, "badges", broken)
    for path, code in (("/fail/404", 404), ("/home", 500)):
        page = owner.page(path, status=code)
        assert (page.heading != "", "/keys" in page.whole.hrefs) == (True, False)


def test_each_request_has_a_name_of_its_own_and_the_log_of_a_fault_tells_it(
    failing: Flask,
    people: People,
    signed_in: SignedIn,
    caplog: pytest.LogCaptureFixture,  # noqa: F811
) -> None:
    owner = signed_in("owner")
    names = {owner.get(path).headers["X-Request-ID"] for path in ("/home", "/home", "/fail/404")}
    assert len(names) == 3
    with caplog.at_level(logging.ERROR):
        broken = owner.get("/fail/500", fragment=True)
    assert broken.headers["X-Request-ID"] in caplog.text


def test_a_database_that_is_away_is_told_on_a_page(
    failing: Flask,
    people: People,
    signed_in: SignedIn,
    monkeypatch: pytest.MonkeyPatch,  # noqa: F811
) -> None:
    from app.domain import teams

    owner = signed_in("owner")

    def away(id: str) -> None:
        raise OperationalError("SELECT", None, Exception("gone"))

    monkeypatch.setattr(teams, "person_and_memberships", away)
    assert owner.page("/home", status=503).heading == "Not available right now"


@pytest.mark.parametrize(
    "trouble",
    [
        OperationalError("INSERT", None, Exception("database or disk is full")),
        NoConnection("QueuePool limit of size 5 overflow 25 reached"),
        ResponseError("OOM command not allowed when used memory > 'maxmemory'."),
        ReadOnlyError("You can't write against a read only replica."),
        OSError(errno.ENOSPC, "No space left on device"),
    ],
    ids=lambda trouble: type(trouble).__name__,
)
def test_a_store_that_takes_nothing_is_503(failing: Flask, trouble: Exception) -> None:
    def fail() -> None:
        raise trouble

    serve(failing, "/trouble", fail)
    answer = failing.test_client().get("/trouble")
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "5")
    assert read(answer).heading == "Not available right now"


def test_a_file_that_is_missing_is_a_fault(failing: Flask) -> None:
    def fail() -> None:
        raise FileNotFoundError(errno.ENOENT, "No such file")

    serve(failing, "/missing", fail)
    assert failing.test_client().get("/missing").status_code == 500


def test_a_redis_without_memory_signs_nobody_out_and_says_503(
    app: Flask,  # noqa: F811
    people: People,
    signed_in: SignedIn,
    wire: redis.Redis,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from app.domain import sessions

    owner = signed_in("owner")
    monkeypatch.setattr(sessions, "SLIDE_EVERY_S", -1)  # each request moves the session's end
    wire.config_set("maxmemory", 1)
    try:
        assert owner.get("/home").status_code == 200
        form = {"username": "owner", "password": PASSWORD}
        client = app.test_client()
        assert client.post("/sign-in", data=form | {"csrf_token": token_of(client.get("/sign-in"))}).status_code == 503
        made = owner.post("/keys", page="/keys/new", name="a", lifetime="never", reach="all")
        assert made.status_code == 200 and "sk-" in made.text  # it is in the database, and is published later
    finally:
        wire.config_set("maxmemory", 0)


def test_an_expired_session_leads_to_the_form_and_back(
    app: Flask,
    people: People,
    signed_in: SignedIn,  # noqa: F811
) -> None:
    from app.domain import sessions

    owner = signed_in("owner")
    sessions.end_all(people.owner.id)
    led = owner.get("/keys?status=active")
    assert led.headers["Location"] == "/sign-in?next=/keys?status%3Dactive"
    assert owner.page(led.headers["Location"]).alert.heading == "Your session has ended"
    assert read(app.test_client().get("/sign-in")).alerts == []


def test_the_footer_tells_version_environment_and_where_to_read_on(people: People, signed_in: SignedIn) -> None:  # noqa: F811
    page = signed_in("admin").page("/home")
    assert re.fullmatch(r"Portico \d+\.\d+\.\d+ · development", page.texts[-2])
    assert page.section("Footer").link("Status").href == "/admin/status"
    assert signed_in("owner").page("/home").section("Footer").links == ["API reference"]
