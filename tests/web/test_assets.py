"""Static files, security headers and the answers to htmx, through a real application."""

from __future__ import annotations

import gzip
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from flask import Flask, render_template_string
from flask.testing import FlaskClient

import config
from app.web import assets
from app.web.render import current_address, render, see_other, toast, toast_next
from app.web.security import content_security_policy
from tests.page import read

ROOT = Path(__file__).resolve().parents[2]
PATTERNFLY = "vendor/patternfly-6.6.1/patternfly.css"


def address(app: Flask, name: str) -> str:
    with app.test_request_context():
        return assets.address(name)


def test_an_address_carries_the_hash_and_is_kept_for_a_year(web_app: Flask, browser: FlaskClient) -> None:
    where = address(web_app, "portico.css")
    assert re.fullmatch(r"/static/[0-9a-f]{8}/portico\.css", where)
    answer = browser.get(where)
    assert answer.status_code == 200
    assert answer.mimetype == "text/css"
    assert answer.headers["Cache-Control"] == "public, max-age=31536000, immutable"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"


def test_a_page_looks_for_the_sprite_of_its_icons_once(web_app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    looked_for: list[str] = []
    find = assets.find
    monkeypatch.setattr(assets, "find", lambda name: looked_for.append(name) or find(name))
    icons = "{% from 'components/icon.html' import icon %}{{ icon('key') }}{{ icon('team') }}"
    for _ in range(2):
        with web_app.test_request_context():
            assert render_template_string(icons).count("icons.svg#") == 2
    assert looked_for == ["icons.svg", "icons.svg"]  # the next page finds what was deployed since


def test_a_deployment_shows_its_own_logo(web_app: Flask, browser: FlaskClient, tmp_path: Path) -> None:
    (tmp_path / "ours.svg").write_text("<svg xmlns='http://www.w3.org/2000/svg'/>")
    (tmp_path / "dark.png").write_bytes(b"\x89PNG")
    mark = '{% include "layouts/_mark.html" %}'
    with web_app.test_request_context():
        assert "brand-mark" in render_template_string(mark)
    logos = {"CONFIG_PORTAL_LOGO": str(tmp_path / "ours.svg"), "CONFIG_PORTAL_LOGO_DARK": str(tmp_path / "dark.png")}
    web_app.config |= {"PORTICO": config.load(logos), "STATIC_URL": "https://static.example"}
    with web_app.test_request_context():
        shown = render_template_string(mark, brand_logos=config.load(logos).logos)
    for (where, kind), look in zip(
        re.findall(r'src="(/static/[0-9a-f]{8}/(\w+))"', shown), ("theme-light", "theme-dark"), strict=True
    ):
        answer = browser.get(where)
        assert answer.data == Path(logos[f"CONFIG_PORTAL_{kind.upper()}"]).read_bytes()
        assert look in shown
    assert browser.get("/static/logo").mimetype == "image/svg+xml"


@pytest.mark.parametrize("where", ["/static/portico.css", "/static/00000000/portico.css"])
def test_without_the_right_hash_a_file_is_kept_only_shortly(browser: FlaskClient, where: str) -> None:
    assert browser.get(where).headers["Cache-Control"] == "public, max-age=300"


@pytest.mark.parametrize(
    ("accepted", "encoding"), [("br, gzip", "br"), ("gzip", "gzip"), ("br;q=0, gzip", "gzip"), ("", None)]
)
def test_the_packed_twin_is_chosen_by_what_the_browser_accepts(
    web_app: Flask, browser: FlaskClient, accepted: str, encoding: str | None
) -> None:
    answer = browser.get(address(web_app, PATTERNFLY), headers={"Accept-Encoding": accepted})
    assert answer.headers.get("Content-Encoding") == encoding
    assert "Accept-Encoding" in answer.headers["Vary"]
    if encoding == "gzip":
        assert gzip.decompress(answer.data) == (assets.FOLDER / PATTERNFLY).read_bytes()


def test_own_files_are_packed_as_they_are_now(web_app: Flask, browser: FlaskClient) -> None:
    answer = browser.get(address(web_app, "portico.js"), headers={"Accept-Encoding": "br, gzip"})
    assert answer.headers["Content-Encoding"] == "gzip"
    assert gzip.decompress(answer.data) == (assets.FOLDER / "portico.js").read_bytes()


def test_an_unchanged_file_is_not_sent_again(browser: FlaskClient) -> None:
    tag = browser.get("/static/portico.css").headers["ETag"]
    assert browser.get("/static/portico.css", headers={"If-None-Match": tag}).status_code == 304


@pytest.mark.parametrize(
    "where",
    [
        "/static/",
        "/static/vendor",
        "/static/vendor/",
        "/static/../app.py",
        "/static/%2e%2e/config.py",
        "/static/.hidden",
        "/static/none.css",
    ],
)
def test_there_is_no_listing_and_no_way_out(browser: FlaskClient, where: str) -> None:
    assert browser.get(where).status_code in (404, 308)


def test_fonts_named_by_the_stylesheet_are_found_below_its_hash(web_app: Flask, browser: FlaskClient) -> None:
    css = address(web_app, PATTERNFLY)
    names = re.findall(r'url\("([^"]+)"\)', (assets.FOLDER / PATTERNFLY).read_text()[:2000])
    assert names == ["RedHatTextVF.woff2"]  # the only face that pages load
    for name in names:
        answer = browser.get(css.rsplit("/", 1)[0] + "/" + name)
        assert (answer.status_code, answer.mimetype) == (200, "font/woff2")
        assert "immutable" in answer.headers["Cache-Control"]


def test_a_static_url_goes_in_front_of_all_but_the_sprite(web_app: Flask) -> None:
    web_app.config["STATIC_URL"] = "https://files.example.org/"
    assert address(web_app, "portico.css").startswith("https://files.example.org/static/")
    assert address(web_app, "icons.svg").startswith("/static/")
    assert "script-src 'self' https://files.example.org;" in content_security_policy("https://files.example.org/")


def test_an_unknown_asset_is_a_fault_of_the_template(web_app: Flask) -> None:
    with pytest.raises(LookupError, match=r"nothing\.css"):
        address(web_app, "nothing.css")


def test_what_is_vendored_is_what_the_manifest_says() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "tools/vendor_assets.py"), "--check"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout


def test_the_first_load_stays_below_250_kilobytes(web_app: Flask, browser: FlaskClient) -> None:
    names = [
        "portico.css",
        "portico.js",
        "theme.js",
        "icons.svg",
        "favicon.svg",
        PATTERNFLY,
        "vendor/htmx.org-4.0.1/htmx.min.js",
    ]
    names += [str(font.relative_to(assets.FOLDER)) for font in (assets.FOLDER / "vendor").rglob("*.woff2")]
    total = sum(len(browser.get(address(web_app, name), headers={"Accept-Encoding": "gzip"}).data) for name in names)
    assert total < 240_000  # the page itself takes the rest


def test_html_carries_the_security_headers(web_app: Flask, browser: FlaskClient) -> None:
    web_app.add_url_rule("/page", view_func=lambda: "<p>x</p>")
    headers = browser.get("/page").headers
    assert headers["Content-Security-Policy"] == (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; "
        "connect-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
    )
    assert headers["X-Frame-Options"] == "DENY"
    assert headers["Referrer-Policy"] == "same-origin"
    assert headers["Cache-Control"] == "no-store"
    assert "Strict-Transport-Security" not in headers
    web_app.config["SESSION_COOKIE_SECURE"] = True
    assert "max-age=" in browser.get("/page").headers["Strict-Transport-Security"]


HTMX = {"HX-Request": "true", "HX-Request-Type": "partial"}


@pytest.mark.parametrize(
    ("headers", "whole"),
    [
        ({}, True),
        (HTMX, False),
        ({"HX-Request": "true", "HX-Request-Type": "full"}, True),
        ({**HTMX, "HX-History-Restore-Request": "true"}, True),
    ],
)
def test_htmx_gets_the_fragment_and_everyone_else_the_page(
    web_app: Flask, headers: dict[str, str], whole: bool
) -> None:
    with web_app.test_request_context(headers=headers):
        answer = render("errors/error.html", "components/icon.html", status=404, code=404)
        assert answer.status_code == 404
        assert ("<html" in answer.get_data(as_text=True)) is whole
        assert "HX-Request" in answer.headers["Vary"]


def test_toasts_add_up_and_a_flashed_one_rides_along(web_app: Flask) -> None:
    with web_app.test_request_context(headers=HTMX):
        toast_next("success", "Saved “a”.")
        answer = toast(render("errors/error.html", "components/icon.html"), "danger", "No.")
        assert answer.headers["HX-Trigger"].isascii()
        assert json.loads(answer.headers["HX-Trigger"]) == {
            "toast": {
                "messages": [{"level": "success", "message": "Saved “a”."}, {"level": "danger", "message": "No."}]
            }
        }


def test_a_flashed_toast_stands_in_the_next_page(web_app: Flask) -> None:
    with web_app.test_request_context():
        toast_next("success", "Saved.")
        page = read(render("errors/error.html", code=404).get_data(as_text=True))
        assert page.toast == "Saved."
        assert "success" in [node.attributes.get("data-toast") for node in page.toast.node.around()]


def test_after_a_change_a_form_is_redirected_and_htmx_told(web_app: Flask) -> None:
    with web_app.test_request_context(method="POST"):
        assert (see_other("/keys").status_code, see_other("/keys").location) == (303, "/keys")
    with web_app.test_request_context(method="POST", headers=HTMX):
        answer = see_other("/keys")
        assert (answer.status_code, answer.headers["HX-Redirect"]) == (204, "/keys")


def test_the_address_of_a_list_changes_one_thing_and_goes_back_to_page_one(web_app: Flask) -> None:
    with web_app.test_request_context("/keys?q=a%26b&status=active&page=3"):
        assert current_address(sort="name") == "/keys?q=a%26b&status=active&sort=name"
        assert current_address(page=4) == "/keys?q=a%26b&status=active&page=4"
        assert current_address(status=None) == "/keys?q=a%26b"
