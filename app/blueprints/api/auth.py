"""The browser session, for pages that sign in by script: start it, end it, and see who is signed in."""

from __future__ import annotations

from typing import Annotated

import msgspec
from flask import request
from flask_wtf.csrf import generate_csrf
from msgspec import Meta

from app.blueprints.api.contract import Body, Malformed, caller, me, route
from app.blueprints.api.users import Me, show_me
from app.domain import identity
from app.extensions import transaction
from app.web.sign_in import sign_in_browser, sign_out_browser


class Credentials(Body, kw_only=True):
    username: Annotated[str, Meta(max_length=200)]
    password: Annotated[str, Meta(max_length=4096)]


class SignedIn(msgspec.Struct, kw_only=True):
    """Send `csrf_token` in the header X-CSRFToken of every request that changes something."""

    user: Me
    csrf_token: str


class WhoAmI(Me, kw_only=True):
    """Yourself; in a browser's session also its `csrf_token`."""

    csrf_token: str | msgspec.UnsetType = msgspec.UNSET


@route("POST", "/api/auth/login", scope=None, body=Credentials, answer=SignedIn, throttled=True)
def login(body: Credentials) -> SignedIn:
    """Starts a browser session. The body must be JSON, which a form on another site cannot send."""
    if not request.is_json:
        raise Malformed("Send JSON with Content-Type: application/json.")
    person = identity.authenticate(body.username, body.password, request.remote_addr or "")
    sign_in_browser(person)
    transaction(identity.accept_sign_in, person)
    return SignedIn(user=show_me(person), csrf_token=generate_csrf())


@route("POST", "/api/auth/logout", scope="any", status=204)
def logout() -> None:
    """Ends the browser session. An access token stays valid."""
    if caller().session:
        sign_out_browser()


@route("GET", "/api/auth/me", scope="any", answer=WhoAmI)
def whoami() -> WhoAmI:
    """Returns who is signed in."""
    who = WhoAmI(**msgspec.structs.asdict(show_me(me())))
    if caller().session:
        who.csrf_token = generate_csrf()
    return who
