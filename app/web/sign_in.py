"""The way into pages: a browser signs in and out, and whoever is not signed in is led to the form and back.

Doors with pages put `require_person` (and `require_admin`) before their requests.
"""

from __future__ import annotations

from urllib.parse import urlsplit

from flask import Response, abort, current_app, g, make_response, redirect, request, session, url_for
from flask_login import current_user
from werkzeug.exceptions import HTTPException
from werkzeug.wrappers import Response as AnyResponse

from app.domain import sessions
from app.domain.person import Person
from app.web.htmx import htmx

START = "/"


def sign_in_browser(person: Person) -> None:
    """Begins a session for a person who has proved who they are. Raises `Unavailable` without Redis."""
    id = sessions.begin(person.id, address=request.remote_addr or "", agent=request.headers.get("User-Agent", ""))
    old = session.get(sessions.COOKIE_FIELD)
    session.clear()  # also the CSRF token: nothing from before the sign-in counts after it
    g.pop("csrf_token", None)
    session.permanent = True
    session[sessions.COOKIE_FIELD] = id
    if isinstance(old, str):
        sessions.end(old)


def sign_out_browser() -> None:
    """Ends this browser's session."""
    found = session.get(sessions.COOKIE_FIELD)
    session.clear()
    if isinstance(found, str):
        sessions.end(found)


def lead_back_in() -> Response:
    """For whoever sends a form without being signed in: their session is over, which the sign-in page says."""
    session.setdefault(sessions.COOKIE_FIELD, "")  # the page knows it by the session that the cookie names
    return _lead_to(url_for("public.sign_in.show", next=_wanted()))


def require_person() -> AnyResponse | None:
    """Before a page's request: leads to the sign-in form, or to the change of a password that must be changed."""
    if not current_user.is_authenticated:
        return _lead_to(url_for("public.sign_in.show", next=_wanted()))
    if current_user.must_change_password:
        return _lead_to(url_for("public.password.show"))
    return None


def require_admin() -> AnyResponse | None:
    """The same for the admins' pages: who may not see them finds nothing to see, who may only read is refused
    changes."""
    led = require_person()
    if led is not None:
        return led
    if not current_user.sees_everything:
        abort(403, "This page is for administrators.")
    if request.method not in ("GET", "HEAD", "OPTIONS") and not current_user.is_admin:
        abort(403, "Your role may read everything here and change nothing.")
    return None


def safe_next(target: str | None) -> str:
    """`target` if it is a path of this site, else the start page: nobody is led elsewhere by a link to us."""
    if not target or not target.startswith("/") or target.startswith(("//", "/\\")):
        return START
    if any(ord(sign) < 32 for sign in target) or "\\" in target:
        return START
    parts = urlsplit(target)
    return target if not parts.scheme and not parts.netloc else START


def _wanted() -> str | None:
    """Where to go after signing in: back to this page or, after a form was sent, to the page that it was on."""
    if request.endpoint == "public.sign_in.begin":
        return request.args.get("next")
    if request.method == "GET":
        path = request.full_path.rstrip("?")
    else:
        came = urlsplit(request.referrer or "")
        asked_on = f"{came.path}?{came.query}".rstrip("?") if came.netloc == request.host else ""
        path = next((one for one in (asked_on, request.path) if _is_a_page(one)), START)
    return None if path == START else path


def _is_a_page(path: str) -> bool:
    """Whether it can be asked for by GET."""
    address = current_app.create_url_adapter(request)
    try:
        return bool(address and path and address.match(path.partition("?")[0], method="GET"))
    except HTTPException:
        return False


def _lead_to(location: str) -> Response:
    if htmx.is_partial:
        response = make_response("", 401)
        response.headers["HX-Redirect"] = location
        return response
    return make_response(redirect(location, 303))
