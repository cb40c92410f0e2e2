"""Signing in with the identity provider: to it and back, linking an account that exists, and its notices of signing out.

A sign-in is begun by one browser and ends in the same one, once, within ten minutes. Whatever comes back wrong gives a
page, an entry in the audit log and no session.

What a sign-in must fit is kept in Redis and taken out by its end (`app.domain.handoffs`). Authlib's own integration of Flask
keeps it in the cookie, and a copy of that could be played again.
"""

from __future__ import annotations

import hmac
import secrets as random_source

import msgspec
from flask import Blueprint, Response, abort, redirect, request, session, url_for
from flask_wtf import FlaskForm
from sqlalchemy.exc import IntegrityError
from werkzeug.wrappers import Response as AnyResponse
from wtforms import PasswordField
from wtforms.validators import InputRequired, Length

from app import current, store
from app.domain import handoffs, identities, identity, sessions, throttles
from app.domain.errors import DomainError, Throttled, Unavailable
from app.domain.person import Person
from app.extensions import csrf, transaction
from app.oidc.errors import SignInFailed
from app.oidc.provider import Profile, Provider, new_verifier, provider
from app.oidc.tokens import LEEWAY_S, OLDEST_LOGOUT_S
from app.runtime.sealing import digest
from app.web.errors import request_id
from app.web.links import origin
from app.web.render import render, see_other, toast_next
from app.web.sign_in import safe_next, sign_in_browser
from app.workflows import single_sign_on

bp = Blueprint("oidc", __name__)

BROWSER, LINK = "oidc_browser", "oidc_link"  # in the browser's cookie


class Begun(msgspec.Struct, frozen=True, kw_only=True):
    """A sign-in that is under way: whose browser began it, and what its end must fit."""

    browser: str
    nonce: str
    verifier: str
    next: str


class Waiting(msgspec.Struct, frozen=True, kw_only=True):
    """A sign-in that waits for the proof that the account `person_id` is theirs."""

    profile: Profile
    person_id: str
    next: str


class LinkForm(FlaskForm):
    password = PasswordField(
        "Password",
        [InputRequired("Enter the password of this account."), Length(max=4096)],
        render_kw={"autocomplete": "current-password", "autofocus": True},
    )


@bp.get("/oidc/login")
def login() -> AnyResponse:
    """Leads to the identity provider."""
    at = _provider()
    browser = session.setdefault(BROWSER, random_source.token_urlsafe(24))
    begun = Begun(
        browser=browser,
        nonce=random_source.token_urlsafe(24),
        verifier=new_verifier(),
        next=safe_next(request.args.get("next")),
    )
    try:
        at.metadata()  # before anything is kept
        url = at.authorization_url(
            redirect_uri=_callback_address(), state=handoffs.put(begun), nonce=begun.nonce, verifier=begun.verifier
        )
    except SignInFailed as error:
        return _page_of_failure(error.status, error.message)
    answer = redirect(url, 302)
    answer.headers["Cache-Control"] = "no-store"
    return answer


@bp.get("/oidc/callback")
def callback() -> Response:
    """What the identity provider answers, in the browser's address."""
    at = _provider()
    try:
        begun = _begun()
        profile = _profile(at, begun)
    except SignInFailed as error:
        return _refused(error)
    return _admit(profile, begun.next)


@bp.get("/oidc/link")
def link() -> Response:
    waiting, person = _waiting()
    return _link_page(waiting, person, LinkForm(formdata=None)) if person else _over()


@bp.post("/oidc/link")
def prove() -> Response:
    """Links the account whose password was given."""
    waiting, person = _waiting()
    if waiting is None or person is None:
        return _over()
    form = LinkForm()
    if not form.validate_on_submit():
        return _link_page(waiting, person, form, 422)
    try:
        if not identity.is_password_of(person, form.password.data or "", request.remote_addr or ""):
            form.password.errors = ["This is not the password of this account."]
            return _link_page(waiting, person, form, 422)
    except Throttled as error:
        response = _link_page(waiting, person, form, 429, fault=error.message)
        response.headers["Retry-After"] = str(error.retry_after_s)
        return response
    if person.disabled:
        return _refused(SignInFailed("disabled", "This account is deactivated."), person)
    return _admit(waiting.profile, waiting.next, linked_to=person) if _is_last_use() else _over()


@bp.post("/oidc/account")
def create() -> Response:
    """Makes another account, for somebody whose name is taken."""
    waiting, person = _waiting()
    if waiting is None or not single_sign_on.may_be_new(waiting.profile, person) or not _is_last_use():
        return _over()
    return _admit(waiting.profile, waiting.next, as_new=True)


@bp.post("/oidc/backchannel-logout")
@csrf.exempt
def backchannel_logout() -> tuple[dict[str, str], int]:
    """Ends the sessions that a logout token of the identity provider names."""
    at = _provider()
    try:
        subject, sid, jti = at.logout_token(request.form.get("logout_token", ""))
    except SignInFailed as error:
        return {"error": "invalid_request", "error_description": error.message}, error.status
    mark = store.logout_token(digest(current.secrets().key_pepper, f"logout token {jti}"))
    if not current.redis().set(mark, 1, nx=True, ex=OLDEST_LOGOUT_S + 2 * LEEWAY_S):
        return {"error": "invalid_request", "error_description": "This token was used before."}, 400
    ended = sessions.end_of_sid(sid) if sid else 0
    found = identities.find(at.issuer, subject) if subject else None
    if found is not None and not ended:
        sessions.end_of_subject(found.person_id, found.subject)
    return {}, 200


@bp.get("/oidc/frontchannel-logout")
def frontchannel_logout() -> tuple[dict[str, str], int]:
    """Ends the session that the identity provider names, in a frame of its own page."""
    at, sid = _provider(), request.args.get("sid", "")
    if request.args.get("iss", "").rstrip("/") != at.issuer or not 0 < len(sid) <= 255:
        return {"error": "invalid_request"}, 400
    sessions.end_of_sid(sid)
    return {}, 200


def _provider() -> Provider:
    """The identity provider. Without one these pages do not exist."""
    at = provider()
    if at is None:
        abort(404)
    throttles.count("oidc", request.remote_addr or "", throttles.AN_ADDRESS)
    return at


def _callback_address() -> str:
    return origin() + url_for("public.oidc.callback")


def _begun() -> Begun:
    """The sign-in that this answer ends. Raises `SignInFailed`."""
    begun = handoffs.take(request.args.get("state", ""), Begun)
    if begun is None:
        raise SignInFailed("state", "This sign-in has expired, or was used before. Sign in again.")
    if not hmac.compare_digest(begun.browser.encode(), str(session.get(BROWSER)).encode()):
        raise SignInFailed("browser", "This sign-in was begun in another browser. Sign in again.")
    return begun


def _profile(at: Provider, begun: Begun) -> Profile:
    """Who signed in. Raises `SignInFailed`."""
    at.check_response(iss=request.args.get("iss"))
    if "error" in request.args:
        denied = request.args["error"] == "access_denied"
        reason = "access_denied" if denied else "provider_error"
        raise SignInFailed(reason, "The identity provider did not sign you in.")
    code = request.args.get("code", "")
    if not code or len(code) > 8192:
        raise SignInFailed("no_code", "The identity provider’s answer has no code. Sign in again.")
    return at.exchange(code=code, redirect_uri=_callback_address(), verifier=begun.verifier, nonce=begun.nonce)


def _admit(profile: Profile, target: str, *, linked_to: Person | None = None, as_new: bool = False) -> Response:
    """Signs the browser in, or leads to the page where an account is linked."""
    linked_id = linked_to.id if linked_to else None

    def work() -> Person | None:
        proved = identity.by_id(linked_id) if linked_id else None
        return single_sign_on.admit(profile, linked_to=proved, as_new=as_new)

    try:
        try:
            person = transaction(work)
        except IntegrityError:  # the same person, at the same moment, in another tab
            person = transaction(work)
    except DomainError as error:
        return _refused(SignInFailed("account", error.message))
    if person is None:
        taken = single_sign_on.plan(profile).person
        session[LINK] = handoffs.put(Waiting(profile=profile, person_id=taken.id if taken else "", next=target))
        return see_other(url_for("public.oidc.link"))
    if person.disabled:
        return _refused(SignInFailed("disabled", "Your account is deactivated. Ask an administrator."), person)
    person_id = person.id
    try:
        sign_in_browser(
            person, sessions.OfProvider(subject=profile.subject, sid=profile.sid, id_token=profile.id_token)
        )
    except Unavailable as error:
        return _page_of_failure(503, error.message)
    transaction(_accept, person_id)
    if linked_to:
        toast_next("success", "Your account is linked. You can sign in this way from now on.")
    return see_other(target)


def _accept(person_id: str) -> None:
    person = identity.by_id(person_id)
    if person is not None:
        identity.accept_sign_in(person, "oidc")


def _waiting() -> tuple[Waiting | None, Person | None]:
    """What waits in this browser for the proof of an account, and the account."""
    if provider() is None:
        abort(404)
    waiting = handoffs.get(str(session.get(LINK, "")), Waiting)
    return waiting, identity.by_id(waiting.person_id) if waiting else None


def _is_last_use() -> bool:
    """Whether this request is the one that uses up what waits."""
    return handoffs.take(str(session.pop(LINK, "")), Waiting) is not None


def _link_page(
    waiting: Waiting | None, person: Person, form: LinkForm, status: int = 200, fault: str | None = None
) -> Response:
    assert waiting is not None
    return render(
        "public/oidc_link.html",
        status=status,
        form=form,
        fault=fault,
        username=person.username,
        has_password=person.password_hash is not None,
        may_be_new=single_sign_on.may_be_new(waiting.profile, person),
        provider_name=current.config().oidc.name,
    )


def _refused(error: SignInFailed, person: Person | None = None) -> Response:
    identity.refuse_sign_in("oidc", error.reason, person)
    return _page_of_failure(403 if error.reason == "disabled" else error.status, error.message)


def _over() -> Response:
    return _page_of_failure(400, "This sign-in has expired. Sign in again.")


def _page_of_failure(status: int, message: str) -> Response:
    return render("public/oidc_failed.html", status=status, message=message, request_id=request_id())
