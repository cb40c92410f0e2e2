"""The security headers of every portal response, set in one place after the view has run.

A view that needs another value (for example a download that may be cached) sets the header itself; it is kept.
"""

from __future__ import annotations

from urllib.parse import urlsplit

from flask import Flask, Response

from config import Config

POLICY = (
    "default-src 'none'; script-src {own}; style-src {own}; img-src 'self' data:; font-src {own}; connect-src 'self'; "
    "form-action 'self'{forms}; frame-ancestors 'none'; base-uri 'none'"
)
PERMISSIONS = "camera=(), geolocation=(), payment=(), usb=(), interest-cohort=(), browsing-topics=()"


def content_security_policy(static_url: str = "", sign_out_url: str = "") -> str:
    """Allows only our own origin. If `static_url` is on another origin, that one may also serve scripts, styles and
    fonts; signing out, which is a form, may lead to the origin of `sign_out_url`."""
    return POLICY.format(own=f"'self'{_other(static_url)}", forms=_other(sign_out_url))


def _other(url: str) -> str:
    place = urlsplit(url)
    return f" {place.scheme}://{place.netloc}" if place.scheme and place.netloc else ""


def init_security(app: Flask) -> None:
    """Adds the security headers to every response of `app`."""

    config: Config | None = app.config.get("PORTICO")
    issuer = config.oidc.issuer if config else None

    @app.after_request
    def add_security_headers(response: Response) -> Response:
        headers = response.headers
        policy = content_security_policy(str(app.config.get("STATIC_URL") or ""), issuer or "")
        headers.setdefault("Content-Security-Policy", policy)
        headers.setdefault("X-Content-Type-Options", "nosniff")
        headers.setdefault("X-Frame-Options", "DENY")
        headers.setdefault("Referrer-Policy", "same-origin")
        headers.setdefault("Permissions-Policy", PERMISSIONS)
        headers.setdefault("Cross-Origin-Opener-Policy", "same-origin")
        headers.setdefault("Cross-Origin-Resource-Policy", "same-origin")
        if response.mimetype == "text/html":
            headers.setdefault("Cache-Control", "no-store")
        if app.config.get("SESSION_COOKIE_SECURE"):
            headers.setdefault("Strict-Transport-Security", "max-age=31536000; includeSubDomains")
        return response
