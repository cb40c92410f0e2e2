"""One request to increase a budget: what is requested and why, the decision, and the withdrawal."""

from __future__ import annotations

from flask import Blueprint, Response, request, url_for
from flask_wtf import FlaskForm
from werkzeug.wrappers import Response as AnyResponse
from wtforms import TextAreaField
from wtforms.validators import Length

from app.blueprints.portal.budgets import READ_ONLY, REQUESTS, address
from app.blueprints.portal.person import me
from app.domain import payers
from app.domain.errors import Conflict, DomainError
from app.extensions import db, transaction
from app.metering import money
from app.pages import budgets as budget_pages
from app.pages.budget_forms import amount_field
from app.web.forms import blame
from app.web.links import url_if_served
from app.web.render import render, see_other, toast_next
from app.workflows import budget_requests
from app.workflows.budget_requests import LONGEST_TEXT, BudgetRequest


class DecisionForm(FlaskForm):
    """Grants or denies the request, depending on the button."""

    amount = amount_field("Amount", "What is granted.")
    reason = TextAreaField(
        "Comment",
        [Length(max=LONGEST_TEXT, message="Use at most %(max)d characters.")],
        description="The person reads it. A denial needs one.",
    )


bp = Blueprint("budget_requests", __name__)


@bp.get("/budget-requests/<id>")
def detail(id: str) -> Response:
    budget_request = budget_requests.get_visible(me(), id)
    return _page(budget_request, DecisionForm(formdata=None, amount=money.text(budget_request.amount_nano)))


@bp.post("/budget-requests/<id>")
def decide(id: str) -> Response:
    person = me()
    budget_request = budget_requests.get_visible(person, id)
    form = DecisionForm()
    if not form.validate_on_submit():
        return _page(budget_request, form, 422)
    decision = request.form.get("decision", "")
    amount = (form.amount.data or "").strip() or None
    try:
        transaction(
            budget_requests.decide,
            budget_request,
            decision,
            by=person,
            amount=amount if decision == "grant" else None,
            reason=form.reason.data,
        )
    except Conflict as error:
        toast_next("warning", error.message)
        return see_other(url_for("portal.budget_requests.detail", id=id))
    except DomainError as error:
        if error.status == 403:
            raise
        blame(form, error)
        return _page(budget_request, form, 422)
    who = budget_request.person.username
    toast_next("success", f"{who} gets more." if decision == "grant" else f"The request of {who} is denied.")
    back = url_if_served("admin.budget_requests.index") if person.sees_everything else None
    return see_other(back or url_for("portal.budget_requests.detail", id=id))


@bp.post("/budget-requests/<id>/withdrawal")
def withdraw(id: str) -> AnyResponse:
    budget_request = budget_requests.get_visible(me(), id)
    payer = payers.read([budget_request.scope]).get(budget_request.scope)
    try:
        transaction(budget_requests.withdraw, budget_request, by=me())
    except Conflict as error:
        toast_next("warning", error.message)
    else:
        toast_next("success", "Your request is taken back.")
    return see_other(address(payer) if payer else url_for("portal.budgets.index"))


def _page(budget_request: BudgetRequest, form: DecisionForm, status: int = 200) -> Response:
    person = me()
    payer = payers.read([budget_request.scope]).get(budget_request.scope)
    decides = payers.may_decide(person, payer) if payer else person.is_admin
    former = (
        budget_requests.about(payer).where(BudgetRequest.id != budget_request.id).limit(REQUESTS) if payer else None
    )
    if former is not None and not (decides or person.sees_everything):
        former = former.where(BudgetRequest.person_id == person.id)
    return render(
        "portal/budgets/request.html",
        status=status,
        budget_request=budget_request,
        payer=payer,
        row=budget_pages.rows([payer], person)[0] if payer else None,
        form=form,
        periods=budget_pages.PERIODS,
        outlook=budget_requests.period_costs(payer) if payer and (decides or person.sees_everything) else [],
        former=list(db.session.scalars(former)) if former is not None else [],
        decides=decides,
        locked=READ_ONLY if person.sees_everything and not decides else None,
        mine=budget_request.person_id == person.id,
        home=url_if_served("admin.budget_requests.index") if person.sees_everything else None,
    )
