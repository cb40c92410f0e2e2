"""Signing in and out. A failed sign-in reads the same whether or not the person exists."""

from __future__ import annotations

from flask import Blueprint, Response, redirect, request, session, url_for
from flask_login import current_user
from flask_wtf import FlaskForm
from werkzeug.wrappers import Response as AnyResponse
from wtforms import PasswordField, StringField
from wtforms.validators import InputRequired, Length

from app import current
from app.domain import identity, sessions
from app.domain.errors import LocalSignInOff, Throttled, Unauthenticated, Unavailable
from app.extensions import transaction
from app.oidc.provider import provider
from app.web.links import origin, url_if_served
from app.web.render import render, see_other
from app.web.sign_in import safe_next, sign_in_browser, sign_out_browser

bp = Blueprint("sign_in", __name__)

WRONG = "The username or the password is wrong."


class SignInForm(FlaskForm):
    username = StringField(
        "Username",
        [InputRequired("Enter your username."), Length(max=200)],
        render_kw={"autocomplete": "username", "autofocus": True, "autocapitalize": "none", "spellcheck": "false"},
    )
    password = PasswordField(
        "Password",
        [InputRequired("Enter your password."), Length(max=4096)],
        render_kw={"autocomplete": "current-password"},
    )


@bp.get("/")
def start() -> AnyResponse:
    """The portal for those who are signed in, the sign-in form for everyone else."""
    if not current_user.is_authenticated:
        return redirect(url_for("public.sign_in.show"), 303)
    return redirect(_home(), 303)


@bp.get("/sign-in")
def show() -> AnyResponse:
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
    except LocalSignInOff as error:
        return _form(form, error.status, fault=error.message)
    except Throttled as error:
        response = _form(form, 429, fault=error.message)
        response.headers["Retry-After"] = str(error.retry_after_s)
        return response
    except Unavailable as error:
        return _form(form, 503, fault=error.message)
    person_id, must_change = person.id, person.must_change_password
    transaction(_accept, person_id)
    target = safe_next(request.args.get("next"))
    return see_other(url_for("public.password.show", next=target) if must_change else target)


@bp.post("/sign-out")
def end() -> Response:
    ended, at = sign_out_browser(), provider()
    back_to = url_for("public.sign_in.show")
    if ended and at and ended.is_of_provider:
        away = at.sign_out_url(id_token=sessions.hint_of(ended), back_to=origin() + back_to)
        return see_other(away or back_to)
    return see_other(back_to)


def _accept(person_id: str) -> None:
    person = identity.by_id(person_id)
    if person is not None:
        identity.accept_sign_in(person)


def _home() -> str:
    """The portal's first page. A process without that door offers the change of password."""
    return url_if_served("portal.home.index") or url_for("public.password.show")


def _form(form: SignInForm, status: int, fault: str | None = None) -> Response:
    settings = current.config()
    return render(
        "public/sign_in.html",
        status=status,
        form=form if settings.auth.local else None,
        single_sign_on=settings.oidc.name if settings.oidc.issuer else None,
        fault=fault,
        # The cookie outlives its session; only signing out clears it.
        ended=fault is None and sessions.COOKIE_FIELD in session,
        next=request.args.get("next"),
    )
