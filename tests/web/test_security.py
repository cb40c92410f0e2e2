"""The headers that every answer carries; what a view has set itself stays."""

from __future__ import annotations

import pytest
from flask import Flask, Response

from app.web.security import content_security_policy


def answer(app: Flask, *, mimetype: str = "text/html", **headers: str) -> Response:
    with app.test_request_context():
        return app.process_response(Response("x", mimetype=mimetype, headers=headers))


def test_a_page_is_framed_sniffed_and_stored_by_nobody(web_app: Flask) -> None:
    headers = answer(web_app).headers
    assert headers["X-Frame-Options"] == "DENY"
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] == "same-origin"
    assert headers["Cache-Control"] == "no-store"
    assert headers["Cross-Origin-Opener-Policy"] == headers["Cross-Origin-Resource-Policy"] == "same-origin"
    assert "camera=()" in headers["Permissions-Policy"]
    assert headers["Content-Security-Policy"] == content_security_policy()


def test_what_a_view_says_itself_stays(web_app: Flask) -> None:
    headers = answer(web_app, **{"Cache-Control": "max-age=60", "X-Frame-Options": "SAMEORIGIN"}).headers
    assert (headers["Cache-Control"], headers["X-Frame-Options"]) == ("max-age=60", "SAMEORIGIN")
    assert "Cache-Control" not in answer(web_app, mimetype="text/css").headers


@pytest.mark.parametrize("secure", [True, False])
def test_a_deployment_with_tls_alone_asks_browsers_to_stay_with_it(web_app: Flask, secure: bool) -> None:
    web_app.config["SESSION_COOKIE_SECURE"] = secure
    assert ("Strict-Transport-Security" in answer(web_app).headers) is secure


@pytest.mark.parametrize(
    ("static_url", "own"),
    [
        ("", "'self'"),
        ("/portico/static", "'self'"),
        ("https://cdn.example.org/portico/", "'self' https://cdn.example.org"),
        ("https://cdn.example.org:8443", "'self' https://cdn.example.org:8443"),
    ],
)
def test_the_policy_allows_our_origin_and_that_of_static_files(static_url: str, own: str) -> None:
    policy = dict(part.split(" ", 1) for part in content_security_policy(static_url).split("; "))
    assert {policy[name] for name in ("script-src", "style-src", "font-src")} == {own}
    assert policy["default-src"] == policy["frame-ancestors"] == policy["base-uri"] == "'none'"
    assert policy["form-action"] == policy["connect-src"] == "'self'"
    assert "unsafe" not in " ".join(policy.values())
