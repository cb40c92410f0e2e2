"""Signing in, signing out, and one's own password, which may have to be changed before anything else.

What went wrong is told in the same words whether or not there is such a person.
"""

from __future__ import annotations

from flask import Blueprint, Response, current_app, g, redirect, request, session, url_for
from flask_login import current_user
from flask_wtf import FlaskForm
from werkzeug.wrappers import Response as AnyResponse
from wtforms import PasswordField, StringField
from wtforms.validators import InputRequired, Length

from app.domain import identity, passwords, sessions
from app.domain.errors import Invalid, Throttled, Unauthenticated, Unavailable
from app.entrance import safe_next, sign_in_browser, sign_out_browser
from app.extensions import transaction
from app.web.render import render, see_other, toast_next

bp = Blueprint("public", __name__)

WRONG = "The username or the password is wrong."


class SignInForm(FlaskForm):
    username = StringField(
        "Username",
        [InputRequired("Give your username."), Length(max=200)],
        render_kw={"autocomplete": "username", "autofocus": True, "autocapitalize": "none", "spellcheck": "false"},
    )
    password = PasswordField(
        "Password",
        [InputRequired("Give your password."), Length(max=4096)],
        render_kw={"autocomplete": "current-password"},
    )


class PasswordForm(FlaskForm):
    current_password = PasswordField(
        "Current password",
        [InputRequired("Give your current password."), Length(max=4096)],
        render_kw={"autocomplete": "current-password", "autofocus": True},
    )
    new_password = PasswordField(
        "New password",
        [InputRequired("Give a new password."), Length(max=4096)],
        description=f"At least {passwords.SHORTEST} characters; a sentence is easy to remember.",
        render_kw={"autocomplete": "new-password"},
    )
    again = PasswordField(
        "New password, again",
        [InputRequired("Give the new password once more."), Length(max=4096)],
        render_kw={"autocomplete": "new-password"},
    )


@bp.get("/")
def start() -> AnyResponse:
    """The portal for those signed in, the form for everybody else."""
    if not current_user.is_authenticated:
        return redirect(url_for("public.sign_in"), 303)
    return redirect(_home(), 303)


@bp.get("/sign-in")
def sign_in() -> AnyResponse:
    if current_user.is_authenticated:
        return redirect(safe_next(request.args.get("next")), 303)
    return _form(SignInForm(), 200)


@bp.post("/sign-in")
def begin() -> Response:
    form = SignInForm()
    if not form.validate_on_submit():
        return _form(form, 422)
    try:
        person = identity.authenticate(form.username.data or "", form.password.data or "", request.remote_addr or "")
        sign_in_browser(person)
    except Unauthenticated:
        return _form(form, 422, fault=WRONG)
    except Throttled as error:
        answer = _form(form, 429, fault=error.message)
        answer.headers["Retry-After"] = str(error.retry_after_s)
        return answer
    except Unavailable as error:
        return _form(form, 503, fault=error.message)
    person_id, must_change = person.id, person.must_change_password
    transaction(_accept, person_id)
    wanted = safe_next(request.args.get("next"))
    return see_other(url_for("public.password", next=wanted) if must_change else wanted)


@bp.post("/sign-out")
def sign_out() -> Response:
    sign_out_browser()
    return see_other(url_for("public.sign_in"))


@bp.get("/password")
def password() -> AnyResponse:
    if not current_user.is_authenticated:
        return redirect(url_for("public.sign_in", next="/password"), 303)
    return _password_form(PasswordForm(), 200)


@bp.post("/password")
def change_password() -> AnyResponse:
    if not current_user.is_authenticated:
        return redirect(url_for("public.sign_in", next="/password"), 303)
    form = PasswordForm()
    if not form.validate_on_submit():
        return _password_form(form, 422)
    if form.new_password.data != form.again.data:
        form.again.errors = ["This is not the same as the new password."]
        return _password_form(form, 422)
    if form.new_password.data == form.current_password.data:
        form.new_password.errors = ["Choose another than the current one."]
        return _password_form(form, 422)
    person = current_user._get_current_object()
    try:
        if not identity.is_password_of(person, form.current_password.data or "", request.remote_addr or ""):
            form.current_password.errors = ["This is not your current password."]
            return _password_form(form, 422)
        kept = passwords.hashed(form.new_password.data or "", "new_password")
    except Invalid as error:
        form.new_password.errors = [error.message]
        return _password_form(form, 422)
    except Throttled as error:
        return _password_form(form, 429, fault=error.message)
    here = g.browser_session.digest
    transaction(identity.change_password, person, by=person, password=kept, keep_session=here)
    toast_next("success", "Your password is changed. Other browsers and programs are signed out.")
    return see_other(safe_next(request.args.get("next")))


def _accept(person_id: str) -> None:
    person = identity.by_id(person_id)
    if person is not None:
        identity.accept_sign_in(person)


def _home() -> str:
    """Where the portal begins; a process without that door has the change of password to offer."""
    if "portal.home" in current_app.view_functions:
        return url_for("portal.home")
    return url_for("public.password")


def _form(form: SignInForm, status: int, fault: str | None = None) -> Response:
    return render(
        "public/sign_in.html",
        status=status,
        form=form,
        fault=fault,
        # The cookie outlives the session that it names; signing out clears it.
        ended=fault is None and sessions.COOKIE_FIELD in session,
        next=request.args.get("next"),
    )


def _password_form(form: PasswordForm, status: int, fault: str | None = None) -> Response:
    return render(
        "public/password.html",
        status=status,
        form=form,
        fault=fault,
        forced=current_user.must_change_password,
        next=request.args.get("next"),
    )
