"""One way to answer with HTML: the part or the page, toasts with either, and addresses of lists."""

from __future__ import annotations

import json
from urllib.parse import parse_qsl, urlsplit

import pytest
from flask import Flask, Response
from flask.testing import FlaskClient
from hypothesis import given
from hypothesis import strategies as st
from jinja2 import ChoiceLoader, DictLoader

from app.web.render import current_address, render, see_other, toast, toast_next

PART = {"HX-Request": "true", "HX-Request-Type": "partial"}


@pytest.fixture
def client(web_app: Flask) -> FlaskClient:
    assert web_app.jinja_loader is not None
    pages = DictLoader({"page.html": "page {{ word }}", "part.html": "part {{ word }}"})
    web_app.jinja_loader = ChoiceLoader([pages, web_app.jinja_loader])
    web_app.add_url_rule("/list", view_func=lambda: render("page.html", "part.html", 422, word="<x>"), endpoint="list")
    web_app.add_url_rule("/page", view_func=lambda: render("page.html", word="x"), endpoint="page")

    def change() -> Response:
        toast_next("danger", "Not so")
        toast_next("success", "Done")
        return see_other("/list?page=2")

    web_app.add_url_rule("/change", view_func=change, endpoint="change", methods=["POST"])
    return web_app.test_client()


def test_a_part_goes_to_htmx_and_the_page_to_everybody_else(client: FlaskClient) -> None:
    page, part = client.get("/list"), client.get("/list", headers=PART)
    assert (page.status_code, page.text) == (422, "page &lt;x&gt;")
    assert (part.status_code, part.text) == (422, "part &lt;x&gt;")
    assert client.get("/page", headers=PART).text == "page x", "without a part it is the page"
    for answer in (page, part):  # no cache may give one for the other
        assert {"HX-Request", "HX-Request-Type"} <= set(answer.vary)


def test_after_a_change_a_browser_goes_on_and_htmx_is_told_where(client: FlaskClient) -> None:
    plain = client.post("/change")
    assert (plain.status_code, plain.headers["Location"]) == (303, "/list?page=2")
    told = client.post("/change", headers=PART)
    assert (told.status_code, told.headers["HX-Redirect"]) == (204, "/list?page=2")
    assert "Location" not in told.headers


def test_toasts_of_before_come_with_the_next_part_once(client: FlaskClient) -> None:
    client.post("/change", headers=PART)
    messages = json.loads(client.get("/list", headers=PART).headers["HX-Trigger"])["toast"]["messages"]
    assert messages == [{"level": "danger", "message": "Not so"}, {"level": "success", "message": "Done"}]
    assert "HX-Trigger" not in client.get("/list", headers=PART).headers


@given(st.lists(st.text(), min_size=1, max_size=4))
def test_any_text_fits_into_the_header_and_several_add_up(messages: list[str]) -> None:
    response = Response()
    for message in messages:
        toast(response, "info", message)
    header = response.headers["HX-Trigger"]
    assert header.isascii() and "\n" not in header
    assert [one["message"] for one in json.loads(header)["toast"]["messages"]] == messages


@pytest.mark.parametrize(
    ("address", "changes", "expected"),
    [
        ("/keys?page=3&q=a", {"status": "active"}, "/keys?q=a&status=active"),
        ("/keys?page=3&q=a", {"q": None}, "/keys"),
        ("/keys?page=3&q=a", {"q": ""}, "/keys"),
        ("/keys?page=3&q=a", {"page": 4}, "/keys?q=a&page=4"),
        ("/keys?m=1&m=2&q=a", {}, "/keys?m=1&m=2&q=a"),
        ("/keys?m=1&m=2", {"m": ["3", "4"]}, "/keys?m=3&m=4"),
        ("/keys", {"q": "a b&c=ä"}, "/keys?q=a+b%26c%3D%C3%A4"),
    ],
)
def test_an_address_of_a_list_keeps_all_but_what_changes(
    web_app: Flask, address: str, changes: dict[str, object], expected: str
) -> None:
    with web_app.test_request_context(address):
        assert current_address(**changes) == expected


@given(
    st.dictionaries(st.text(min_size=1, max_size=4).filter(lambda name: name not in ("page", "q")), st.text()),
    st.text(min_size=1),
)
def test_whatever_stands_in_an_address_is_still_there(others: dict[str, str], q: str) -> None:
    with Flask("lists").test_request_context("/list", query_string={**others, "page": "7"}):
        query = urlsplit(current_address(q=q)).query
        assert parse_qsl(query, keep_blank_values=True) == [*others.items(), ("q", q)]
