"""Links are built on the public address; what a request says of itself counts only where none is set. They lead to doors
that are open here, and to no others."""

from __future__ import annotations

import pytest
from flask import Flask

from app.web import links
from config import load


def origin(url: str | None, host: str) -> str:
    app = Flask(__name__)
    app.config["PORTICO"] = load({"CONFIG_SERVER_PUBLIC_URL": url} if url else {})
    with app.test_request_context("/", headers={"Host": host}):
        return links.origin()


def test_a_request_says_nothing_about_links_where_a_public_address_is_set() -> None:
    assert origin("https://portal.example.com/", "evil.example") == "https://portal.example.com"


@pytest.mark.parametrize(
    ("host", "found"),
    [
        ("portal.test:8000", "http://portal.test:8000"),
        ("[::1]:8000", "http://[::1]:8000"),
        ("evil.example/x?", "http://localhost:8000"),
        ("evil.example'; rm", "http://localhost:8000"),
        ("user@evil.example", "http://localhost:8000"),
    ],
)
def test_without_one_the_host_that_was_asked_is_taken_if_it_is_one(host: str, found: str) -> None:
    assert origin(None, host) == found


def test_a_page_is_linked_to_only_if_this_process_serves_it() -> None:
    app = Flask("links")
    app.add_url_rule("/keys/<id>", "portal.keys.detail", lambda id: id)
    with app.test_request_context("/"):
        assert links.url_if_served("portal.keys.detail", id="k", tab="use") == "/keys/k?tab=use"
        assert links.url_if_served("admin.keys.index") is None
        assert (links.is_served("portal.keys.detail"), links.is_served("admin.keys.index")) == (True, False)
