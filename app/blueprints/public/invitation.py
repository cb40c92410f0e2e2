"""An invitation's link: the person who opens it chooses a username and a password, and is signed in."""

from __future__ import annotations

from flask import Blueprint, Response, url_for
from flask_login import current_user
from flask_wtf import FlaskForm
from wtforms import PasswordField, StringField
from wtforms.validators import InputRequired, Length

from app import current
from app.domain import identity, invitations, passwords
from app.domain.errors import DomainError, NotFound, Unavailable
from app.domain.invitations import Invitation
from app.extensions import transaction
from app.web.forms import blame
from app.web.render import render, see_other, toast_next
from app.web.sign_in import START, sign_in_browser

bp = Blueprint("invitation", __name__)


class AccountForm(FlaskForm):
    """What the invited person chooses. The invitation sets the rest."""

    username = StringField(
        "Username",
        [InputRequired("Choose a username."), Length(max=64, message="Use at most %(max)d characters.")],
        description="Letters, digits and . _ @ + -. It cannot be changed later.",
        render_kw={"autocomplete": "username", "autofocus": True, "autocapitalize": "none", "spellcheck": "false"},
    )
    password = PasswordField(
        "Password",
        [InputRequired("Choose a password."), Length(max=4096)],
        description=f"At least {passwords.SHORTEST} characters; a sentence is easy to remember.",
        render_kw={"autocomplete": "new-password"},
    )
    again = PasswordField(
        "Password, again",
        [InputRequired("Enter the password again."), Length(max=4096)],
        render_kw={"autocomplete": "new-password"},
    )


@bp.get("/invitation/<token>")
def open(token: str) -> Response:
    invitation = invitations.opened_by(token)
    if invitation is not None and not current.config().auth.local:
        return _by_provider(token, invitation)
    return _page(token, invitation, AccountForm(formdata=None)) if invitation else _over()


@bp.post("/invitation/<token>")
def accept(token: str) -> Response:
    invitation = invitations.opened_by(token)
    if invitation is None:
        return _over()
    if not current.config().auth.local:
        return _accept_as_signed_in(token, invitation)
    form = AccountForm()
    if not form.validate_on_submit():
        return _page(token, invitation, form, 422)
    if form.password.data != form.again.data:
        form.again.errors = ["This is not the same as the password."]
        return _page(token, invitation, form, 422)
    try:
        password = passwords.hashed(form.password.data or "")
        person = transaction(invitations.accept, token, username=(form.username.data or "").strip(), password=password)
    except NotFound:
        return _over()
    except DomainError as error:
        blame(form, error)
        return _page(token, invitations.opened_by(token) or invitation, form, error.status)
    try:
        sign_in_browser(person)
    except Unavailable:  # the account exists; only the session must wait
        return see_other(url_for("public.sign_in.show"))
    toast_next("success", f"Welcome, {person.username}. Your account is ready.")
    return see_other(START)


def _by_provider(token: str, invitation: Invitation) -> Response:
    """The page where passwords are switched off: one signs in first, and accepts then."""
    return render(
        "public/invitation_by_provider.html", invitation=invitation, token=token, name=current.config().oidc.name
    )


def _accept_as_signed_in(token: str, invitation: Invitation) -> Response:
    if not current_user.is_authenticated:
        return _by_provider(token, invitation)
    person_id = current_user.id

    def work() -> None:
        person = identity.by_id(person_id)
        if person is None:
            raise NotFound("This account does not exist any more.")
        invitations.accept_by(token, person)

    try:
        transaction(work)
    except NotFound:
        return _over()
    toast_next("success", "You accepted the invitation.")
    return see_other(START)


def _page(token: str, invitation: Invitation, form: AccountForm, status: int = 200) -> Response:
    return render("public/invitation.html", status=status, form=form, invitation=invitation, token=token)


def _over() -> Response:
    return render("public/invitation_over.html", status=404)
