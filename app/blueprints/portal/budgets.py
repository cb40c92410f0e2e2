"""Budgets: what pays for your calls and how much is left. Each budget has a page that says whose requests are blocked
and what was changed, and that lets you request an increase."""

from __future__ import annotations

from flask import Blueprint, Response, url_for
from flask_wtf import FlaskForm
from wtforms import RadioField, TextAreaField
from wtforms.fields.choices import SelectChoice  # type: ignore[attr-defined]  # the stubs are older
from wtforms.validators import InputRequired, Length

from app.blueprints.portal.person import me
from app.domain import payers
from app.domain.errors import Conflict, DomainError
from app.domain.payers import Payer
from app.extensions import db, transaction
from app.pages import budgets as budget_pages
from app.pages.budget_forms import amount_field
from app.pages.history import history_lines
from app.web import exports
from app.web.forms import blame
from app.web.links import url_if_served
from app.web.render import render, see_other, toast_next
from app.workflows import alerts, budget_requests
from app.workflows.budget_requests import LONGEST_TEXT, BudgetRequest

ALERTS, REQUESTS = 20, 20
READ_ONLY = "Read-only access: your role can’t decide on requests."
EDIT = "admin.budgets.detail"


class AskForm(FlaskForm):
    """Requests an increase."""

    amount = amount_field("How much more", validators=[InputRequired("Enter an amount.")])
    lasting = RadioField(
        "For how long",
        choices=[SelectChoice("once", "This period only"), SelectChoice("lasting", "Each period from now on")],
        default="once",
    )
    reason = TextAreaField(
        "What do you need it for?",
        [
            InputRequired("Enter a reason."),
            Length(max=LONGEST_TEXT, message="Use at most %(max)d characters."),
        ],
        description=f"Shown to the approver. At most {LONGEST_TEXT} characters.",
    )


bp = Blueprint("budgets", __name__)


@bp.get("/budgets")
def index() -> Response:
    person = me()
    rows = [row for row in budget_pages.rows(payers.paying_for(person), person) if row.state != "none"]
    if file_format := exports.requested_format():
        return exports.answer(file_format, "budgets", budget_pages.EXPORTED, rows)
    query = budget_requests.visible_to(person).where(BudgetRequest.person_id == person.id).limit(REQUESTS)
    requests = list(db.session.scalars(query))
    return render(
        "portal/budgets/index.html",
        "portal/budgets/_list.html",
        rows=rows,
        kinds=budget_pages.KINDS,
        periods=budget_pages.PERIODS,
        requests=requests,
        payer_of=payers.read(budget_request.scope for budget_request in requests),
    )


@bp.get("/budgets/<scope>/<id>")
def detail(scope: str, id: str) -> Response:
    return _page(payers.get_visible(me(), scope, id), AskForm(formdata=None))


@bp.post("/budgets/<scope>/<id>/requests")
def ask(scope: str, id: str) -> Response:
    person = me()
    payer = payers.get_visible(person, scope, id)
    form = AskForm()
    if not form.validate_on_submit():
        return _page(payer, form, 422)
    try:
        transaction(
            budget_requests.ask,
            payer,
            by=person,
            amount=(form.amount.data or "").strip(),
            lasting=form.lasting.data == "lasting",
            reason=form.reason.data or "",
        )
    except Conflict as error:
        toast_next("warning", error.message)
        return see_other(address(payer))
    except DomainError as error:
        blame(form, error)
        return _page(payer, form, error.status)
    toast_next("success", "Increase requested. You will be notified of the decision.")
    return see_other(address(payer))


def _page(payer: Payer, form: AskForm, status: int = 200) -> Response:
    person = me()
    row, *below = budget_pages.rows([payer, *payers.below(payer)], person)
    sees_all = payers.sees_requests(person, payer)
    query = budget_requests.about(payer).limit(REQUESTS)
    if not sees_all:
        query = query.where(BudgetRequest.person_id == person.id)
    return render(
        "portal/budgets/detail.html",
        status=status,
        row=row,
        form=form,
        kinds=budget_pages.KINDS,
        periods=budget_pages.PERIODS,
        actions=budget_pages.ACTIONS,
        mine=payer.kind == "user" and payer.person_id == person.id,
        may_ask=payers.charges(person, payer) and row.state != "none",
        pending=budget_requests.pending(person, payer),
        requests=list(db.session.scalars(query)),
        below=[inner for inner in below if inner.state != "none"],
        alerts=list(db.session.scalars(alerts.of_scope(*payer.scope).limit(ALERTS))),
        history=history_lines(budget_pages.history(payer, whole=sees_all or payer.person_id == person.id)),
        edit=url_if_served(EDIT, scope=payer.kind, id=payer.public_id) if person.sees_everything else None,
        credit=url_if_served("admin.credits.new", scope=f"{payer.kind}/{payer.public_id}")
        if person.sees_everything
        else None,
        locked=None if person.is_admin else READ_ONLY,
    )


def address(payer: Payer) -> str:
    """Returns the path of a budget's page."""
    return url_for("portal.budgets.detail", scope=payer.kind, id=payer.public_id)
