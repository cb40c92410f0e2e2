"""Changing one's own password. A temporary password must be changed before anything else."""

from __future__ import annotations

from flask import Blueprint, Response, g, redirect, request, url_for
from flask_login import current_user
from flask_wtf import FlaskForm
from werkzeug.wrappers import Response as AnyResponse
from wtforms import PasswordField
from wtforms.validators import InputRequired, Length

from app.domain import identity, passwords
from app.domain.errors import Invalid, Throttled
from app.extensions import transaction
from app.web.render import render, see_other, toast_next
from app.web.sign_in import safe_next

bp = Blueprint("password", __name__)


class PasswordForm(FlaskForm):
    current_password = PasswordField(
        "Current password",
        [InputRequired("Enter your current password."), Length(max=4096)],
        render_kw={"autocomplete": "current-password", "autofocus": True},
    )
    new_password = PasswordField(
        "New password",
        [InputRequired("Enter a new password."), Length(max=4096)],
        description=f"At least {passwords.SHORTEST} characters; a sentence is easy to remember.",
        render_kw={"autocomplete": "new-password"},
    )
    again = PasswordField(
        "New password, again",
        [InputRequired("Enter the new password again."), Length(max=4096)],
        render_kw={"autocomplete": "new-password"},
    )


@bp.get("/password")
def show() -> AnyResponse:
    if not current_user.is_authenticated:
        return redirect(url_for("public.sign_in.show", next="/password"), 303)
    return _page(PasswordForm(), 200)


@bp.post("/password")
def change() -> AnyResponse:
    if not current_user.is_authenticated:
        return redirect(url_for("public.sign_in.show", next="/password"), 303)
    form = PasswordForm()
    if not form.validate_on_submit():
        return _page(form, 422)
    if form.new_password.data != form.again.data:
        form.again.errors = ["This is not the same as the new password."]
        return _page(form, 422)
    if form.new_password.data == form.current_password.data:
        form.new_password.errors = ["Choose another than the current one."]
        return _page(form, 422)
    person = current_user._get_current_object()
    try:
        if not identity.is_password_of(person, form.current_password.data or "", request.remote_addr or ""):
            form.current_password.errors = ["This is not your current password."]
            return _page(form, 422)
        new_password = passwords.hashed(form.new_password.data or "", "new_password")
    except Invalid as error:
        form.new_password.errors = [error.message]
        return _page(form, 422)
    except Throttled as error:
        return _page(form, 429, fault=error.message)
    session_digest = g.browser_session.digest
    transaction(identity.change_password, person, by=person, password=new_password, keep_session=session_digest)
    toast_next("success", "Your password is changed. Other browsers and programs are signed out.")
    return see_other(safe_next(request.args.get("next")))


def _page(form: PasswordForm, status: int, fault: str | None = None) -> Response:
    return render(
        "public/password.html",
        status=status,
        form=form,
        fault=fault,
        forced=current_user.must_change_password,
        next=request.args.get("next"),
    )
