"""Invitations: links that let people create their own account. Create, list and withdraw them."""

from __future__ import annotations

from flask import Blueprint, Response, url_for
from flask_wtf import FlaskForm
from wtforms import IntegerField, SelectField, StringField
from wtforms.fields.choices import SelectChoice  # type: ignore[attr-defined]  # the stubs are older
from wtforms.validators import InputRequired, Length, NumberRange

from app.blueprints.admin.person import me
from app.domain import deliveries, invitations
from app.domain.errors import DomainError
from app.domain.invitations import LONGEST_DAYS, STATUSES, Invitation
from app.domain.person import ROLE_NAMES
from app.extensions import transaction
from app.web import links, one_time
from app.web.forms import WordsField, blame
from app.web.lists import filters_from_request, list_page
from app.web.render import render, see_other, toast_next

bp = Blueprint("invitations", __name__)


class InvitationForm(FlaskForm):
    """Who is invited, with which role, and until when."""

    email = StringField(
        "E-mail",
        [Length(max=255, message="Use at most %(max)d characters.")],
        render_kw={"inputmode": "email", "autocomplete": "off", "autofocus": True},
    )
    role = SelectField("Role", choices=[SelectChoice(role, name) for role, name in ROLE_NAMES.items()], default="user")
    groups = WordsField(
        "Groups",
        description="Separated by commas. Empty for none.",
        render_kw={"autocomplete": "off", "spellcheck": "false"},
    )
    days = IntegerField(
        "Days until it ends",
        [
            InputRequired("Enter a number of days."),
            NumberRange(1, LONGEST_DAYS, f"Enter 1 to {LONGEST_DAYS} days."),
        ],
        default=7,
        description=f"At most {LONGEST_DAYS}.",
    )


@bp.get("/admin/invitations")
def index() -> Response:
    filters = filters_from_request(status=STATUSES)
    return list_page(
        "admin/invitations",
        invitations.search(search=filters.search, status=filters["status"]),
        search=filters.search,
        chosen=filters["status"],
        statuses=STATUSES,
        roles=ROLE_NAMES,
    )


@bp.get("/admin/invitations/new")
def new() -> Response:
    return _form(InvitationForm(formdata=None))


@bp.post("/admin/invitations")
def create() -> Response:
    """Creates an invitation, whose link the next page shows once."""
    form = InvitationForm()
    if not form.validate_on_submit():
        return _form(form, 422)
    try:
        created, link = transaction(
            invitations.invite,
            by=me(),
            link=f"{links.origin()}/invitation/{{token}}",
            email=form.email.data,
            role=form.role.data,
            groups=form.groups.data or (),
            days=form.days.data or 0,
        )
    except DomainError as error:
        blame(form, error)
        return _form(form, 422)
    address = url_for("admin.invitations.link", id=created.id)
    return one_time.show_once(created.id, link, address, lambda text: _with_link(created, text))


@bp.get("/admin/invitations/<id>/link")
def link(id: str) -> Response:
    """Shows the link of a new invitation the first time that it is asked for."""
    invitation = invitations.invitation(id)
    text = one_time.take(id)
    if text is None:
        words = (
            "The link of an invitation is shown only once. If it is lost, withdraw the invitation and create another."
        )
        return one_time.gone("Invitation", words, url_for("admin.invitations.index"))
    return _with_link(invitation, text)


def _with_link(invitation: Invitation, text: str) -> Response:
    """The only response that ever contains the link."""
    mailed = bool(invitation.email) and deliveries.mails()
    response = render("admin/invitations/made.html", invitation=invitation, link=text, mailed=mailed)
    response.headers["Cache-Control"] = "no-store"
    return response


@bp.post("/admin/invitations/<id>/withdrawal")
def withdraw(id: str) -> Response:
    invitation = invitations.invitation(id)
    try:
        transaction(invitations.withdraw, invitation, by=me())
    except DomainError as error:
        toast_next("warning", error.message)
    else:
        toast_next("success", "The invitation is withdrawn: its link opens nothing any more.")
    return see_other(url_for("admin.invitations.index"))


def _form(form: InvitationForm, status: int = 200) -> Response:
    return render("admin/invitations/new.html", status=status, form=form, mails=deliveries.mails())
