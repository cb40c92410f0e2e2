"""Signing in and out in a browser. Anyone who is not signed in is redirected to the sign-in form, and then back.

Doors with pages register `guard` to run before their requests.
"""

from __future__ import annotations

from urllib.parse import urlsplit

from flask import Response, abort, current_app, g, make_response, redirect, request, session, url_for
from flask_login import current_user
from werkzeug.exceptions import HTTPException
from werkzeug.wrappers import Response as AnyResponse

from app.domain import sessions, throttles
from app.domain.person import Person
from app.web import exports, policies
from app.web.htmx import htmx
from app.web.policies import Policy

START = "/"


def sign_in_browser(person: Person, of_provider: sessions.OfProvider | None = None) -> None:
    """Starts a session for a person who has proved who they are, to us or to the identity provider. Raises `Unavailable`
    without Redis."""
    session_id = sessions.begin(
        person.id,
        address=request.remote_addr or "",
        agent=request.headers.get("User-Agent", ""),
        of_provider=of_provider,
    )
    old = session.get(sessions.COOKIE_FIELD)
    session.clear()  # the CSRF token too: nothing from before the sign-in stays valid
    g.pop("csrf_token", None)
    session.permanent = True
    session[sessions.COOKIE_FIELD] = session_id
    if isinstance(old, str):
        sessions.end(old)


def sign_out_browser() -> sessions.BrowserSession | None:
    """Ends this browser's session, and returns it if there was one."""
    session_id = session.get(sessions.COOKIE_FIELD)
    session.clear()
    if not isinstance(session_id, str):
        return None
    ended = sessions.find(session_id)
    sessions.end(session_id)
    return ended


def redirect_expired_session() -> Response:
    """For a form that was sent without being signed in: the session is over, and the sign-in page says so."""
    session.setdefault(sessions.COOKIE_FIELD, "")  # tells the sign-in page that there was a session
    return _redirect(url_for("public.sign_in.show", next=_page_to_return_to()))


def guard() -> AnyResponse | None:
    """Runs before a page's request, and answers it if this person may not make it (see `app.web.policies`)."""
    policy = policies.of(request.endpoint or "")
    answer = require(policy) if policy else None  # a path without a page is a 404 to everybody
    if answer is None and exports.requested_format() and current_user.is_authenticated:
        throttles.count("export", current_user.id, throttles.A_PERSON)
    return answer


def require(policy: Policy) -> AnyResponse | None:
    """Returns a redirect to the sign-in form for nobody, or to the password form if the password must be changed; else
    None. Whom the policy does not allow gets 403."""
    if policy.allows(None, request.method):
        return None
    if not current_user.is_authenticated:
        return _redirect(url_for("public.sign_in.show", next=_page_to_return_to()))
    person: Person = current_user._get_current_object()
    if person.must_change_password:
        return _redirect(url_for("public.password.show"))
    if not policy.allows(person):
        abort(403, "This page is for administrators.")
    if not policy.allows(person, request.method):
        abort(403, "Read-only access: your role can’t make changes.")
    return None


def safe_next(target: str | None) -> str:
    """Returns `target` if it is a path of this site, else the start page: a link to us must not lead elsewhere."""
    if not target or not target.startswith("/") or target.startswith(("//", "/\\")):
        return START
    if any(ord(character) < 32 for character in target) or "\\" in target:
        return START
    parts = urlsplit(target)
    return target if not parts.scheme and not parts.netloc else START


def _page_to_return_to() -> str | None:
    """Where to go after signing in: this page or, after a form was sent, the page of the form."""
    if request.endpoint == "public.sign_in.begin":
        return request.args.get("next")
    if request.method == "GET":
        path = request.full_path.rstrip("?")
    else:
        referrer = urlsplit(request.referrer or "")
        form_page = f"{referrer.path}?{referrer.query}".rstrip("?") if referrer.netloc == request.host else ""
        path = next((one for one in (form_page, request.path) if _is_a_page(one)), START)
    return None if path == START else path


def _is_a_page(path: str) -> bool:
    """Whether the path can be requested by GET."""
    address = current_app.create_url_adapter(request)
    try:
        return bool(address and path and address.match(path.partition("?")[0], method="GET"))
    except HTTPException:
        return False


def _redirect(location: str) -> Response:
    if htmx.is_partial:
        response = make_response("", 401)
        response.headers["HX-Redirect"] = location
        return response
    return make_response(redirect(location, 303))
