"""Budgets: what pays for one's calls and how much of it is left, and each with a page that says who is cut off, what
was changed, and lets one ask for more."""

from __future__ import annotations

from typing import Any

from flask import Blueprint, Response, current_app, request, url_for
from flask_wtf import FlaskForm
from werkzeug.wrappers import Response as AnyResponse
from wtforms import RadioField, StringField, TextAreaField
from wtforms.fields.choices import SelectChoice  # type: ignore[attr-defined]  # the stubs are older
from wtforms.validators import InputRequired, Length

from app.blueprints.portal.person import me
from app.domain import alerts, budget_requests, payers
from app.domain.budget_requests import LONGEST_TEXT, BudgetRequest
from app.domain.errors import Conflict, DomainError
from app.domain.payers import Payer
from app.extensions import db, transaction
from app.metering import money
from app.web import budgets as arranged
from app.web import exports
from app.web.forms import blame
from app.web.render import render, see_other, toast_next

ALERTS, REQUESTS = 20, 20
READ_ONLY = "Your role may read this and decide nothing."
EDIT = "admin.budgets.detail"


class AskForm(FlaskForm):
    """Asks for more."""

    amount = StringField(
        "How much more",
        [InputRequired("Give an amount.")],
        render_kw={"inputmode": "decimal", "autocomplete": "off"},
    )
    lasting = RadioField(
        "For how long",
        choices=[SelectChoice("once", "This period only"), SelectChoice("lasting", "Each period from now on")],
        default="once",
    )
    reason = TextAreaField(
        "What do you need it for?",
        [
            InputRequired("Say what you need it for."),
            Length(max=LONGEST_TEXT, message="Use at most %(max)d characters."),
        ],
        description=f"Who decides reads this. At most {LONGEST_TEXT} characters.",
    )


class DecisionForm(FlaskForm):
    """Grants or denies; which of them says the button."""

    amount = StringField(
        "Amount", description="What is granted.", render_kw={"inputmode": "decimal", "autocomplete": "off"}
    )
    reason = TextAreaField(
        "Comment",
        [Length(max=LONGEST_TEXT, message="Use at most %(max)d characters.")],
        description="The person reads it. A denial needs one.",
    )


def open_on(door: Blueprint) -> None:
    door.add_url_rule("/budgets", "budgets", index)
    door.add_url_rule("/budgets/<scope>/<id>", "budget", detail)
    door.add_url_rule("/budgets/<scope>/<id>/requests", "ask_for_more", ask, methods=["POST"])
    door.add_url_rule("/budget-requests/<id>", "budget_request", show)
    door.add_url_rule("/budget-requests/<id>", "decide_budget_request", decide, methods=["POST"])
    door.add_url_rule("/budget-requests/<id>/withdrawal", "withdraw_budget_request", withdraw, methods=["POST"])


def index() -> Response:
    person = me()
    found = [row for row in arranged.rows(payers.of(person), person) if row.state != "none"]
    if form := exports.wanted():
        return exports.answer(form, "budgets", arranged.EXPORTED, found)
    asked = budget_requests.reachable(person).where(BudgetRequest.person_id == person.id).limit(REQUESTS)
    requests = list(db.session.scalars(asked))
    return render(
        "portal/budgets/index.html",
        "portal/budgets/_list.html",
        rows=found,
        kinds=arranged.KINDS,
        periods=arranged.PERIODS,
        requests=requests,
        named=payers.read(one.scope for one in requests),
    )


def detail(scope: str, id: str) -> Response:
    return _page(payers.reach(me(), scope, id), AskForm(formdata=None))


def ask(scope: str, id: str) -> Response:
    person = me()
    payer = payers.reach(person, scope, id)
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
        return see_other(_address(payer))
    except DomainError as error:
        blame(form, error)
        return _page(payer, form, error.status)
    toast_next("success", "You have asked for more. The answer comes as a notice.")
    return see_other(_address(payer))


def show(id: str) -> Response:
    found = budget_requests.reach(me(), id)
    return _request_page(found, DecisionForm(formdata=None, amount=_text(found)))


def decide(id: str) -> Response:
    person = me()
    found = budget_requests.reach(person, id)
    form = DecisionForm()
    if not form.validate_on_submit():
        return _request_page(found, form, 422)
    wanted = request.form.get("decision", "")
    amount = (form.amount.data or "").strip() or None
    try:
        transaction(
            budget_requests.decide,
            found,
            wanted,
            by=person,
            amount=amount if wanted == "grant" else None,
            reason=form.reason.data,
        )
    except Conflict as error:
        toast_next("warning", error.message)
        return see_other(url_for("portal.budget_request", id=id))
    except DomainError as error:
        if error.status == 403:
            raise
        blame(form, error)
        return _request_page(found, form, 422)
    who = found.person.username
    toast_next("success", f"{who} gets more." if wanted == "grant" else f"The request of {who} is denied.")
    listed = "admin.budget_requests.index"
    back = listed if person.sees_everything and listed in current_app.view_functions else None
    return see_other(url_for(back) if back else url_for("portal.budget_request", id=id))


def withdraw(id: str) -> AnyResponse:
    found = budget_requests.reach(me(), id)
    payer = payers.read([found.scope]).get(found.scope)
    try:
        transaction(budget_requests.withdraw, found, by=me())
    except Conflict as error:
        toast_next("warning", error.message)
    else:
        toast_next("success", "Your request is taken back.")
    return see_other(_address(payer) if payer else url_for("portal.budgets"))


def _page(payer: Payer, form: AskForm, status: int = 200) -> Response:
    person = me()
    row, *below = arranged.rows([payer, *payers.below(payer)], person)
    sees_all = payers.sees_requests(person, payer)
    asked = budget_requests.about(payer).limit(REQUESTS)
    if not sees_all:
        asked = asked.where(BudgetRequest.person_id == person.id)
    return render(
        "portal/budgets/detail.html",
        status=status,
        row=row,
        form=form,
        kinds=arranged.KINDS,
        periods=arranged.PERIODS,
        actions=arranged.ACTIONS,
        mine=payer.kind == "user" and payer.person_id == person.id,
        may_ask=payers.charges(person, payer) and row.state != "none",
        waiting=budget_requests.pending(person, payer),
        requests=list(db.session.scalars(asked)),
        below=[one for one in below if one.state != "none"],
        told=list(db.session.scalars(alerts.of(*payer.scope).limit(ALERTS))),
        story=arranged.story(arranged.history(payer, whole=sees_all or payer.person_id == person.id)),
        edit=_if_served(EDIT, scope=payer.kind, id=payer.shown) if person.sees_everything else None,
        credit=_if_served("admin.credits.new", scope=f"{payer.kind}/{payer.shown}") if person.sees_everything else None,
        locked=None if person.is_admin else READ_ONLY,
    )


def _request_page(found: BudgetRequest, form: DecisionForm, status: int = 200) -> Response:
    person = me()
    payer = payers.read([found.scope]).get(found.scope)
    decides = payers.may_decide(person, payer) if payer else person.is_admin
    former = budget_requests.about(payer).where(BudgetRequest.id != found.id).limit(REQUESTS) if payer else None
    if former is not None and not (decides or person.sees_everything):
        former = former.where(BudgetRequest.person_id == person.id)
    return render(
        "portal/budgets/request.html",
        status=status,
        found=found,
        payer=payer,
        row=arranged.rows([payer], person)[0] if payer else None,
        form=form,
        periods=arranged.PERIODS,
        outlook=budget_requests.outlook(payer) if payer and (decides or person.sees_everything) else [],
        former=list(db.session.scalars(former)) if former is not None else [],
        decides=decides,
        locked=READ_ONLY if person.sees_everything and not decides else None,
        mine=found.person_id == person.id,
        home=_if_served("admin.budget_requests.index") if person.sees_everything else None,
    )


def _if_served(endpoint: str, **values: Any) -> str | None:
    """The address of another door's page, if this process opens that door."""
    return url_for(endpoint, **values) if endpoint in current_app.view_functions else None


def _address(payer: Payer) -> str:
    return url_for("portal.budget", scope=payer.kind, id=payer.shown)


def _text(found: BudgetRequest) -> str:
    return money.text(found.amount_nano)
