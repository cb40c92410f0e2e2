"""Compression: pages arrive packed and whole, and their packed length tells nothing."""

from __future__ import annotations

import gzip

import pytest
from flask import Flask, Response
from flask.testing import FlaskClient

from app.web.compression import init_compression

PAGE = "<p>the same again</p>" * 400


@pytest.fixture
def client() -> FlaskClient:
    app = Flask(__name__)
    init_compression(app)
    app.get("/page", endpoint="page")(lambda: PAGE)
    app.get("/short", endpoint="short")(lambda: "<p>short</p>")
    app.get("/file", endpoint="file")(lambda: Response(PAGE, mimetype="text/csv"))
    return app.test_client()


def test_a_page_is_packed_for_who_takes_it(client: FlaskClient) -> None:
    answer = client.get("/page", headers={"Accept-Encoding": "gzip, deflate"})
    assert answer.headers["Content-Encoding"] == "gzip"
    assert int(answer.headers["Content-Length"]) == len(answer.data) < len(PAGE) / 10
    assert gzip.decompress(answer.data).decode() == PAGE


@pytest.mark.parametrize("accepted", ["", "identity", "br", "gzip;q=0"])
def test_nobody_gets_what_they_did_not_ask_for(client: FlaskClient, accepted: str) -> None:
    answer = client.get("/page", headers={"Accept-Encoding": accepted})
    assert "Content-Encoding" not in answer.headers
    assert "Accept-Encoding" in answer.headers["Vary"]  # a cache must not hand one to the other
    assert answer.text == PAGE


@pytest.mark.parametrize("path", ["/short", "/file"])
def test_what_gains_nothing_or_is_no_page_is_left(client: FlaskClient, path: str) -> None:
    assert "Content-Encoding" not in client.get(path, headers={"Accept-Encoding": "gzip"}).headers


def test_the_same_page_has_many_lengths(client: FlaskClient) -> None:
    lengths = {len(client.get("/page", headers={"Accept-Encoding": "gzip"}).data) for _ in range(40)}
    assert len(lengths) > 5
