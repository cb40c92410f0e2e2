"""The way into pages: where a browser is led, and what is left of a session after signing in and out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import urljoin, urlsplit

import pytest
from flask import Flask, g, session
from flask_login import login_user
from hypothesis import given
from hypothesis import strategies as st
from werkzeug.exceptions import Forbidden

from app.domain import sessions
from app.domain.person import Person
from app.extensions import transaction
from app.web.policies import ADMINS, PEOPLE
from app.web.sign_in import require, safe_next, sign_in_browser, sign_out_browser
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


@pytest.mark.parametrize(
    "target",
    [
        "https://evil.example",
        "//evil.example",
        "/\\evil.example",
        "javascript:alert(1)",
        "/a\nb",
        "",
        "x",
        "/\t/evil",
        "/a\\b",
    ],
)
def test_next_leads_nowhere_else(target: str) -> None:
    assert safe_next(target) == "/"


def test_next_leads_back() -> None:
    assert safe_next("/keys?page=2") == "/keys?page=2"


@given(st.text(st.sampled_from("/\\\t\n :@?#.%aehlpstv"), max_size=20))
def test_wherever_next_leads_it_is_on_this_site(target: str) -> None:
    """As a browser reads it, which takes a backslash for a slash and leaves out tabs and ends of lines."""
    led = safe_next(target)
    read = led.replace("\\", "/").translate({ord(sign): None for sign in "\t\r\n"})
    assert urlsplit(urljoin("https://portico.example/keys", read)).netloc == "portico.example"
    assert led in (target, "/")


@pytest.fixture
def asking(app: Flask, people: People) -> Callable[..., Any]:  # noqa: F811
    """`asking(person, path, ...)` is a request of somebody, or of nobody."""

    def request(person: Person | None, path: str = "/keys?page=2", **arguments: Any) -> Any:
        context = app.test_request_context(path, **arguments)
        context.push()
        g.pop("_login_user", None)  # the application's context is that of the whole test
        opened.append(context)
        if person is not None:
            login_user(person)
        return context

    opened: list[Any] = []
    yield request
    for context in reversed(opened):
        context.pop()


def led_to(answer: Any) -> str | None:
    return None if answer is None else answer.headers.get("Location") or answer.headers["HX-Redirect"]


def test_nobody_is_led_to_the_form_and_back_to_the_page(asking: Callable[..., Any]) -> None:
    asking(None)
    answer = require(PEOPLE)
    assert answer is not None
    assert (answer.status_code, led_to(answer)) == (303, "/sign-in?next=/keys?page%3D2")
    asking(None, headers={"HX-Request": "true"})
    part = require(PEOPLE)
    assert part is not None
    assert (part.status_code, led_to(part)) == (401, "/sign-in?next=/keys?page%3D2")
    assert "Location" not in part.headers, "htmx would put the form into the page"


def test_after_a_form_the_way_back_is_its_page_on_this_site(asking: Callable[..., Any]) -> None:
    for referrer, back in (
        ("http://localhost/password?next=%2F", "/sign-in?next=/password?next%3D%252F"),
        ("http://elsewhere.example/password", "/sign-in"),
        ("http://localhost/nothing-here", "/sign-in"),
    ):
        asking(None, "/sign-out", method="POST", headers={"Referer": referrer})
        assert led_to(require(PEOPLE)) == back


def test_a_password_that_must_be_changed_comes_first(asking: Callable[..., Any], people: People) -> None:  # noqa: F811
    asking(people.owner)
    assert require(PEOPLE) is None
    transaction(lambda: setattr(people.admin, "must_change_password", True))
    asking(people.admin)
    assert led_to(require(PEOPLE)) == led_to(require(ADMINS)) == "/password"


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE"])
def test_the_admins_pages_are_read_by_some_and_changed_by_admins(
    asking: Callable[..., Any],
    people: People,  # noqa: F811
    method: str,
) -> None:
    reads = method in ("GET", "HEAD", "OPTIONS")
    for person, passes in ((people.admin, True), (people.auditor, reads), (people.owner, False)):
        asking(person, "/admin/people", method=method)
        if passes:
            assert require(ADMINS) is None
        else:
            with pytest.raises(Forbidden):
                require(ADMINS)
    asking(None, "/admin/people", method=method)
    assert require(ADMINS) is not None


def test_signing_in_leaves_nothing_of_before(asking: Callable[..., Any], people: People) -> None:  # noqa: F811
    asking(None)
    sign_in_browser(people.stranger)
    before = session[sessions.COOKIE_FIELD]
    session["csrf_token"] = "of before"
    sign_in_browser(people.owner)
    after = session[sessions.COOKIE_FIELD]
    assert "csrf_token" not in session
    assert sessions.find(before) is None
    found = sessions.find(after)
    assert found is not None and found.person_id == people.owner.id
    sign_out_browser()
    assert (sessions.COOKIE_FIELD in session, sessions.find(after)) == (False, None)
    sign_out_browser()  # again: there is nothing to end
