"""Approvals: who asks for which restricted model and why, and the decision.

A decision is a page of its own that scripts show in a dialog above the list, so both are one template.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from typing import Any

from flask import Blueprint, Response, request, url_for
from flask_wtf import FlaskForm
from wtforms import DateField, HiddenField, SelectField, StringField, TextAreaField, ValidationError
from wtforms.validators import Length, Optional

from app.blueprints.admin.person import me
from app.domain import subscriptions
from app.domain.errors import Conflict, DomainError
from app.domain.subscriptions import LONGEST_TEXT, STATUSES, Subscription
from app.entrance import safe_next
from app.extensions import db, now, transaction
from app.web.forms import blame
from app.web.lists import page_of
from app.web.render import render, see_other, toast_next

WAITING, EVERYTHING = "pending", "all"
PERIODS = [("day", "a day"), ("week", "a week"), ("month", "a month"), ("total", "in total")]
DONE = {"approve": "{person} may use {model} now.", "deny": "The request of {person} for {model} is denied."}

bp = Blueprint("approvals", __name__)


class DecisionForm(FlaskForm):
    """Approve or deny; which of them says the button. Limits count for an approval only."""

    back = HiddenField()
    reason = TextAreaField(
        "Comment",
        [Length(max=LONGEST_TEXT, message="Use at most %(max)d characters.")],
        description=f"The person reads it. A denial needs one. At most {LONGEST_TEXT} characters.",
    )
    expires_on = DateField("Last day of access", [Optional()], description="Days end in UTC. Empty for no end.")
    budget = StringField(
        "Budget",
        description="The most that may be spent through it in each period. Empty for no limit of its own.",
        render_kw={"inputmode": "decimal", "autocomplete": "off"},
    )
    period = SelectField("Budget period", choices=PERIODS, default="month")

    def validate_expires_on(self, field: DateField) -> None:
        if field.data is not None and field.data < now().date():
            raise ValidationError("Give today or a later day.")

    def granted(self) -> dict[str, Any]:
        """The limits of an approval, as `subscriptions.decide` takes them."""
        amount = (self.budget.data or "").strip()
        return {
            "expires_at": _end(self.expires_on.data),
            "budget": {"limit": amount, "period": self.period.data} if amount else None,
        }


@bp.get("/admin/approvals")
def index() -> Response:
    search = request.args.get("q", "").strip()[:100]
    status = request.args.get("status", WAITING)
    status = status if status in (*STATUSES, EVERYTHING) else WAITING
    found = subscriptions.asked(status=None if status == EVERYTHING else status, search=search or None)
    return render(
        "admin/approvals/index.html",
        "admin/approvals/_list.html",
        found=page_of(found),
        search=search,
        chosen=status,
        statuses=STATUSES,
    )


@bp.get("/admin/subscriptions/<id>/decision")
def decision(id: str) -> Response:
    form = DecisionForm(formdata=None)
    form.back.data = _back(request.args.get("back"))
    return _page(subscriptions.reach(me(), id), form)


@bp.post("/admin/subscriptions/<id>/decision")
def decide(id: str) -> Response:
    found = subscriptions.reach(me(), id, change=True)
    form = DecisionForm()
    wanted = request.form.get("decision", "")
    if not form.validate_on_submit():
        return _page(found, form, 422)
    if wanted not in DONE:
        form.form_errors.append("Choose to approve or to deny.")
        return _page(found, form, 422)
    granted = form.granted() if wanted == "approve" else {}
    try:
        transaction(subscriptions.decide, found, wanted, by=me(), reason=form.reason.data, **granted)
    except Conflict:
        return _page(found, form, 409)
    except DomainError as error:
        blame(form, error, limit="budget", expires_at="expires_on")
        return _page(found, form, 422)
    toast_next("success", DONE[wanted].format(person=found.person.username, model=found.model_name))
    return see_other(_back(form.back.data))


def _page(found: Subscription, form: DecisionForm, status: int = 200) -> Response:
    """Who asks for what; with the form while it waits. 409 says that somebody else was faster."""
    others = db.session.scalars(subscriptions.of(found.person, status="active"))
    return render(
        "admin/approvals/decision.html",
        "admin/approvals/_dialog.html",
        status=status,
        subscription=found,
        form=form,
        back=_back(form.back.data),
        too_late=status == 409,
        others=[one.model_name for one in others if one.id != found.id],
    )


def _back(target: str | None) -> str:
    """The list as it was left, or the list of what waits."""
    home = url_for("admin.approvals.index")
    wanted = safe_next(target)
    return wanted if wanted.partition("?")[0] == home else home


def _end(day: date | None) -> datetime | None:
    return datetime.combine(day + timedelta(days=1), time(), UTC) if day else None
