"""Approvals: who requests which restricted model, or a later end, and why; decisions on one request and on many.

A decision is a page of its own, which scripts show as a dialog above the list. One template serves both.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from typing import Any, NamedTuple

from flask import Blueprint, Response, request, url_for
from flask_wtf import FlaskForm
from sqlalchemy import Select
from sqlalchemy.orm import lazyload
from wtforms import DateField, HiddenField, SelectField, TextAreaField, ValidationError
from wtforms.validators import Length, Optional

from app.blueprints.admin.person import me
from app.clock import LATEST, now
from app.domain import budgets, subscriptions
from app.domain.errors import Conflict, DomainError, NotFound
from app.domain.subscriptions import LONGEST_TEXT, ORDERS, STATUSES, Subscription
from app.extensions import db, transaction
from app.pages.badges import badges
from app.pages.budget_forms import PERIOD_CHOICES, amount_field
from app.reports import usage as usage_reports
from app.reports.usage import Filters
from app.web import exports
from app.web.formats import relative_time
from app.web.forms import blame
from app.web.lists import SIZES, filters_from_request, list_page
from app.web.render import render, see_other, toast_next
from app.web.sign_in import safe_next

WAITING, EVERYTHING = "pending", "all"
KINDS = ("request", "renewal")
COLUMNS = {name: ORDERS[name] for name in ("person", "model", "status", "asked", "changed", "ends")}
MOST_AT_ONCE = SIZES[-1]  # the size of the longest page of the list
SHOWN = 20  # of a person's other subscriptions
DONE = {
    "approve": "{person} may use {model} now.",
    "deny": "The request of {person} for {model} is denied.",
    "suspend": "The access of {person} to {model} is suspended.",
    "resume": "{person} may use {model} again.",
}
RENEWAL_DONE = {
    "approve": "The access of {person} to {model} is renewed.",
    "deny": "The access of {person} to {model} is not renewed; it ends as planned.",
}
BECAME = {"approve": "Approved", "deny": "Denied", "suspend": "Suspended", "resume": "Resumed"}
# How long a request has been pending, and the colour of its label from then on.
AGES = ((timedelta(days=5), "red"), (timedelta(days=2), "orange"), (timedelta(), "grey"))

EXPORT_COLUMNS: dict[str, Any] = {
    "id": lambda one: one.id,
    "user": lambda one: one.person.username,
    "email": lambda one: one.person.email,
    "model": lambda one: one.model_name,
    "waits_for": lambda one: one.waits_for,
    "purpose": lambda one: one.justification,
    "renewal_reason": lambda one: one.renewal_reason,
    "status": lambda one: one.status,
    "asked_at": lambda one: one.asked_at,
    "decided_at": lambda one: one.decided_at,
    "decided_by": lambda one: one.decided_by,
    "comment": lambda one: one.decision_reason,
    "expires_at": lambda one: one.expires_at,
    "changed_at": lambda one: one.updated_at,
}

bp = Blueprint("approvals", __name__)


class DecisionForm(FlaskForm):
    """Approve, deny, suspend or resume, depending on the button. Limits only matter for an approval."""

    back = HiddenField()
    reason = TextAreaField(
        "Comment",
        [Length(max=LONGEST_TEXT, message="Use at most %(max)d characters.")],
        description=f"The person reads it. A denial needs one. At most {LONGEST_TEXT} characters.",
    )
    expires_on = DateField("Last day of access", [Optional()], description="Days end in UTC. Empty for no end.")
    budget = amount_field("Budget", "The most that may be spent through it in each period. Empty for no change.")
    period = SelectField("Budget period", choices=PERIOD_CHOICES, default="month")

    def validate_expires_on(self, field: DateField) -> None:
        if field.data is not None and field.data < now().date():
            raise ValidationError("Enter today or a later day.")
        if field.data is not None and field.data >= LATEST.date():
            raise ValidationError("Enter a day before the year 3000.")

    def granted(self) -> dict[str, Any]:
        """The limits of an approval, as `subscriptions.decide` takes them."""
        amount = (self.budget.data or "").strip()
        return {
            "expires_at": _end(self.expires_on.data),
            "budget": {"limit": amount, "period": self.period.data} if amount else None,
        }


class Result(NamedTuple):
    """The result for one of many: the subscription if there is one, and the error if there was one."""

    subscription: Subscription | None
    fault: str | None


@bp.get("/admin/approvals")
def index() -> Response:
    filters = filters_from_request(status=(*STATUSES, EVERYTHING), kind=KINDS, defaults={"status": WAITING})
    status, kind = filters["status"], filters["kind"]
    return list_page(
        "admin/approvals",
        subscriptions.approvals(
            status=None if status in (WAITING, EVERYTHING) else status,
            wait=kind or ("any" if status == WAITING else None),
            search=filters.search,
        ),
        COLUMNS,
        file=lambda file_format, rows: exports.answer(file_format, "approvals", EXPORT_COLUMNS, rows),
        page=lambda listing: {"ages": {one.id: _age(one) for one in listing.items if one.waits_for}},
        search=filters.search,
        chosen=status,
        statuses=STATUSES,
        kind=kind,
        badges=badges(me()),
    )


@bp.get("/admin/subscriptions/<id>/decision")
def decision(id: str) -> Response:
    subscription = subscriptions.get_visible(me(), id)
    form = DecisionForm(formdata=None)
    form.back.data = _back(request.args.get("back"))
    form.expires_on.data = _proposed_end(subscription)
    return _page(subscription, form)


@bp.post("/admin/subscriptions/<id>/decision")
def decide(id: str) -> Response:
    subscription = subscriptions.get_visible(me(), id, change=True)
    form = DecisionForm()
    decision = request.form.get("decision", "")
    if not form.validate_on_submit():
        return _page(subscription, form, 422)
    if decision not in DONE:
        form.form_errors.append("Choose what to decide.")
        return _page(subscription, form, 422)
    words = (RENEWAL_DONE if subscription.waits_for == "renewal" else {}).get(decision, DONE[decision])
    limits = form.granted() if decision == "approve" else {}
    try:
        transaction(subscriptions.decide, subscription, decision, by=me(), reason=form.reason.data, **limits)
    except Conflict:
        return _page(subscription, form, 409)
    except DomainError as error:
        blame(form, error, limit="budget", expires_at="expires_on")
        return _page(subscription, form, 422)
    toast_next("success", words.format(person=subscription.person.username, model=subscription.model_name))
    return see_other(_back(form.back.data))


@bp.get("/admin/approvals/decisions")
def decisions() -> Response:
    """The page that asks for one decision on the requests that were ticked in the list."""
    form = DecisionForm(formdata=None)
    form.back.data = _back(request.args.get("back"))
    return _many_page(form, request.args.getlist("ids"))


@bp.post("/admin/approvals/decisions")
def decide_many() -> Response:
    """Decides each request in its own transaction and shows the result for each. Sending the form again changes
    nothing, because requests that are already decided are refused."""
    form = DecisionForm()
    decision = request.form.get("decision", "")
    ids = request.form.getlist("ids")
    valid = form.validate_on_submit()
    if decision not in DONE:
        form.form_errors.append("Choose what to decide.")
    if decision == "deny" and not (form.reason.data or "").strip():
        form.reason.errors = [*form.reason.errors, "Enter a reason. It is shown to each person."]
    if not ids:
        form.form_errors.append("Nothing is chosen. Go back to the list and tick at least one.")
    elif len(ids) > MOST_AT_ONCE:
        form.form_errors.append(f"Decide on at most {MOST_AT_ONCE} at a time.")
    if not valid or form.errors:
        return _many_page(form, ids, 422)
    limits = form.granted() if decision == "approve" else {}
    results = [_decided(id, decision, form.reason.data, limits) for id in dict.fromkeys(ids)]
    return render(
        "admin/approvals/results.html",
        results=results,
        became=BECAME[decision],
        failed=sum(result.fault is not None for result in results),
        back=_back(form.back.data),
    )


def _decided(id: str, decision: str, reason: str | None, limits: dict[str, Any]) -> Result:
    def decide() -> None:
        subscriptions.decide(
            subscriptions.get_visible(me(), id, change=True), decision, by=me(), reason=reason, **limits
        )

    try:
        transaction(decide)
    except NotFound as error:
        return Result(None, error.message)
    except DomainError as error:
        return Result(subscriptions.get_visible(me(), id), error.message)
    return Result(subscriptions.get_visible(me(), id), None)


def _many_page(form: DecisionForm, ids: list[str], status: int = 200) -> Response:
    chosen = db.session.scalars(
        subscriptions.visible_to(me()).where(Subscription.id.in_(list(dict.fromkeys(ids))[:MOST_AT_ONCE]))
    ).all()
    return render(
        "admin/approvals/decisions.html",
        status=status,
        subscriptions=list(chosen),
        form=form,
        back=_back(form.back.data),
    )


def _page(subscription: Subscription, form: DecisionForm, status: int = 200) -> Response:
    """The request and the form. 409 means that somebody else decided first."""
    others = subscriptions.owned_by(subscription.person).where(Subscription.model_name != subscription.model_name)
    last_month, this_month = usage_reports.usage(
        me(), "month", periods=2, filters=Filters(person_id=subscription.person_id), detailed=True
    )
    return render(
        "admin/approvals/decision.html",
        "admin/approvals/_dialog.html",
        status=status,
        subscription=subscription,
        form=form,
        back=_back(form.back.data),
        too_late=status == 409,
        age=_age(subscription) if subscription.waits_for else None,
        others=_without_models(others),
        former=_without_models(subscriptions.former(subscription)),
        this_month=this_month,
        last_month=last_month,
        standing=budgets.standing("subscription", subscription.id),
    )


def _without_models(query: Select[Subscription]) -> list[Subscription]:
    """Returns some subscriptions without loading their models, because only the model's name is shown."""
    return list(db.session.scalars(query.limit(SHOWN).options(lazyload(Subscription.model))))


def _age(subscription: Subscription) -> tuple[str, str]:
    """How long the request has been pending, in words, and the colour of the label."""
    moment = now()
    waited = moment - subscription.asked_at
    words = relative_time(subscription.asked_at, moment).removesuffix(" ago")
    colour = next((colour for since, colour in AGES if waited >= since), "grey")
    return ("asked just now" if words == "just now" else f"waiting {words}"), colour


def _proposed_end(subscription: Subscription) -> date | None:
    """The end that the form suggests: the current end, and for a renewal the same period added to it."""
    if subscription.expires_at is None or subscription.expires_at <= now():
        return None
    end = subscription.expires_at
    if subscription.waits_for == "renewal":
        end += max(subscription.expires_at - (subscription.decided_at or subscription.created_at), timedelta(days=1))
    return (end - timedelta(microseconds=1)).date()


def _back(target: str | None) -> str:
    """Returns the address of the list as the person left it, or of the list of pending requests."""
    home = url_for("admin.approvals.index")
    address = safe_next(target)
    return address if address.partition("?")[0] == home else home


def _end(day: date | None) -> datetime | None:
    return datetime.combine(day + timedelta(days=1), time(), UTC) if day else None
