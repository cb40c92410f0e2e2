"""Approval rules: which requests for restricted models are approved immediately, in which order the rules are tried,
and the budget and end that they set."""

from __future__ import annotations

from typing import Any

from flask import Blueprint, Response, request, url_for
from wtforms import IntegerField, SelectField, StringField
from wtforms.fields.choices import SelectChoice  # type: ignore[attr-defined]  # the stubs are older
from wtforms.validators import InputRequired, Length, NumberRange, Optional

from app.blueprints.admin.person import me
from app.domain import approval_rules
from app.domain.approval_rules import LONGEST_NAME, MOST_DAYS, ApprovalRule
from app.domain.errors import DomainError
from app.extensions import db, transaction
from app.metering import money
from app.pages.budget_forms import PERIOD_CHOICES, amount_field
from app.web.forms import EditForm, blame
from app.web.render import render, see_other, toast_next

ROLES = [
    SelectChoice("", "Anybody"),
    SelectChoice("user", "Users"),
    SelectChoice("admin", "Administrators"),
    SelectChoice("admin-readonly", "Administrators, read only"),
]

bp = Blueprint("rules", __name__)


class RuleForm(EditForm):
    """One rule. An empty condition matches everyone or every model."""

    name = StringField(
        "Name",
        [InputRequired("Enter a name."), Length(max=LONGEST_NAME, message="Use at most %(max)d characters.")],
        description="Who is approved by it sees this name.",
        render_kw={"autocomplete": "off", "maxlength": LONGEST_NAME},
    )
    role = SelectField("Role", choices=ROLES)
    group = StringField(
        "Group",
        [Length(max=LONGEST_NAME, message="Use at most %(max)d characters.")],
        description="A group that the person is in. Empty for any.",
        render_kw={"autocomplete": "off", "spellcheck": "false", "maxlength": LONGEST_NAME},
    )
    most_input_per_mtok = amount_field("Highest input price", "Per 1M tokens. Empty for any.")
    most_output_per_mtok = amount_field("Highest output price", "Per 1M tokens. Empty for any.")
    budget_limit = amount_field("Budget", "The most that each such subscription may spend in a period. Empty for none.")
    budget_period = SelectField("Budget period", choices=PERIOD_CHOICES, default="month")
    days = IntegerField(
        "Days until it ends",
        [Optional(), NumberRange(1, MOST_DAYS, f"Enter a number from 1 to {MOST_DAYS}.")],
        description="Empty for no end.",
    )

    def to_changes(self) -> dict[str, Any]:
        """The arguments of `approval_rules.create` and `update`."""
        return {
            "name": self.name.data or "",
            "role": self.role.data or None,
            "group": self.group.data or None,
            "most_input_per_mtok": self.most_input_per_mtok.data or None,
            "most_output_per_mtok": self.most_output_per_mtok.data or None,
            "budget_limit": self.budget_limit.data or None,
            "budget_period": self.budget_period.data,
            "days": self.days.data,
        }


@bp.get("/admin/rules")
def index() -> Response:
    rules = list(db.session.scalars(approval_rules.in_order()))
    return render("admin/rules/index.html", "admin/rules/_list.html", rules=rules)


@bp.get("/admin/rules/new")
def new() -> Response:
    return _form(RuleForm(formdata=None))


@bp.post("/admin/rules")
def create() -> Response:
    form = RuleForm()
    if not form.validate_on_submit():
        return _form(form, status=422)
    try:
        rule = transaction(approval_rules.create, by=me(), **form.to_changes())
    except DomainError as error:
        blame(form, error)
        return _form(form, status=422)
    toast_next("success", f"The rule {rule.name} is added and active.")
    return see_other(url_for("admin.rules.index"))


@bp.get("/admin/rules/<id>")
def detail(id: str) -> Response:
    rule = approval_rules.by_id(id)
    return _form(_filled(rule), rule)


@bp.post("/admin/rules/<id>")
def change(id: str) -> Response:
    rule = approval_rules.by_id(id)
    form = RuleForm()
    if not form.validate_on_submit():
        return _form(form, rule, 422)
    try:
        form.save(lambda: _filled(rule), approval_rules.update, rule, by=me(), **form.to_changes())
    except DomainError as error:
        return _form(form, rule, blame(form, error))
    toast_next("success", f"The rule {rule.name} is saved. What it approved before stays as it is.")
    return see_other(url_for("admin.rules.index"))


@bp.post("/admin/rules/<id>/activity")
def switch(id: str) -> Response:
    """Switches a rule on or off, depending on `active`."""
    rule = approval_rules.by_id(id)
    active = request.form.get("active") == "y"
    transaction(approval_rules.switch, rule, active=active, by=me())
    toast_next("success", f"The rule {rule.name} is {'on' if active else 'off'}.")
    return see_other(url_for("admin.rules.index"))


@bp.post("/admin/rules/<id>/position")
def move(id: str) -> Response:
    """Moves a rule one place up or down."""
    rule = approval_rules.by_id(id)
    transaction(approval_rules.move, rule, "up" if request.form.get("direction") == "up" else "down", by=me())
    return see_other(url_for("admin.rules.index"))


@bp.get("/admin/rules/<id>/deletion")
def deletion(id: str) -> Response:
    """The confirmation page."""
    return render("admin/rules/deletion.html", rule=approval_rules.by_id(id))


@bp.post("/admin/rules/<id>/deletion")
def delete(id: str) -> Response:
    rule = approval_rules.by_id(id)
    name = rule.name
    transaction(approval_rules.delete, rule, by=me())
    toast_next("success", f"The rule {name} is deleted.")
    return see_other(url_for("admin.rules.index"))


def _form(form: RuleForm, rule: ApprovalRule | None = None, status: int = 200) -> Response:
    return render("admin/rules/detail.html", status=status, form=form, rule=rule)


def _filled(rule: ApprovalRule) -> RuleForm:
    """The form with the current values."""
    amounts = ("most_input_per_mtok", "most_output_per_mtok")
    data = {
        "name": rule.name,
        "role": rule.role or "",
        "group": rule.group or "",
        **{name: _text(getattr(rule, name)) for name in amounts},
        "budget_limit": _text(rule.budget_limit_nano),
        "budget_period": rule.budget_period or "month",
        "days": rule.days,
    }
    return RuleForm(formdata=None, data=data).as_opened()


def _text(nano: int | None) -> str:
    return "" if nano is None else money.text(nano)
