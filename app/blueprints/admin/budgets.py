"""Budgets: every scope that has one, how near its limit it is, and what happens at the limit."""

from __future__ import annotations

from typing import Any, cast

from flask import Blueprint, Response, url_for
from wtforms import IntegerField, SelectField
from wtforms.fields.choices import SelectChoice  # type: ignore[attr-defined]  # the stubs are older
from wtforms.validators import NumberRange, Optional

from app.blueprints.admin.person import me
from app.domain import budgets, payers
from app.domain.errors import DomainError
from app.domain.payers import Payer
from app.metering import money
from app.pages import budget_list
from app.pages import budgets as budget_pages
from app.pages.budget_forms import BudgetFields
from app.pages.history import history_lines
from app.web import exports
from app.web.forms import EditForm, PercentsField, blame, judged
from app.web.lists import Listing, filters_from_request, list_page
from app.web.render import render, see_other, toast_next

FILTERS = ("near", "exhausted", "forecast")
bp = Blueprint("budgets", __name__)


class BudgetForm(BudgetFields, EditForm):
    """The budget of one scope, its alerts, and its action when it is nearly spent."""

    thresholds = PercentsField(
        "Alert at",
        [judged(budgets.read_thresholds)],
        default=list(budgets.THRESHOLDS),
        description="Percentages of the limit, separated by commas. You are notified once per period. Empty for none.",
        render_kw={"autocomplete": "off"},
    )
    action = SelectField("Also", default="notify")
    action_percent = IntegerField(
        "At percent",
        [Optional(), NumberRange(1, 100, "Enter a percentage from 1 to 100.")],
        default=100,
        description="Where it happens.",
    )


@bp.get("/admin/budgets")
def index() -> Response:
    filters = filters_from_request(state=FILTERS, kind=budget_pages.KINDS)
    return list_page(
        "admin/budgets",
        budget_list.search(kind=filters["kind"], state=filters["state"], text=filters.search),
        budget_list.columns(),
        file=lambda file_format, rows: exports.answer(
            file_format, "budgets", budget_pages.EXPORTED, budget_list.every_row(rows)
        ),
        page=lambda listing: {
            "listing": Listing(budget_list.rows(listing.items), listing.page, listing.size, listing.total),
            "any": bool(listing.total) or filters.is_narrow,
        },
        search=filters.search,
        state=filters["state"],
        kind=filters["kind"],
        kinds=budget_pages.KINDS,
        periods=budget_pages.PERIODS,
    )


@bp.get("/admin/budgets/<scope>/<id>")
def detail(scope: str, id: str) -> Response:
    payer = payers.get_visible(me(), scope, id)
    return _form(payer, _filled(payer))


@bp.post("/admin/budgets/<scope>/<id>")
def change(scope: str, id: str) -> Response:
    payer = payers.get_visible(me(), scope, id)
    form = BudgetForm()
    form.action.choices = _actions(payer)
    if not form.validate_on_submit():
        return _form(payer, form, 422)
    budget = form.to_budget()

    def now() -> BudgetForm:
        return _filled(payer)

    try:
        if budget:
            form.save(
                now,
                budgets.set_budget,
                cast("Any", payer.kind),
                payer.id,
                by=me(),
                **budget,
                thresholds=form.thresholds.data,
                action=form.action.data,
                action_percent=form.action_percent.data or 100,
            )
        else:
            form.save(now, budgets.clear, cast("Any", payer.kind), payer.id, by=me())
    except DomainError as error:
        blame(form, error)
        return _form(payer, form, error.status)
    toast_next("success", f"The budget of {payer.name} is {'saved' if budget else 'removed'}.")
    return see_other(url_for("admin.budgets.index"))


def _filled(payer: Payer) -> BudgetForm:
    """The form with the current values."""
    budget = budgets.find(*payer.scope)
    form = BudgetForm(formdata=None)
    form.action.choices = _actions(payer)
    if budget is not None:
        form.limit.data, form.period.data, form.timezone.data = (
            money.text(budget.limit_nano),
            budget.period,
            budget.timezone,
        )
        form.thresholds.data = list(budget.thresholds)
        form.action.data, form.action_percent.data = budget.action, budget.action_percent
    return form.as_opened()


def _actions(payer: Payer) -> list[Any]:
    return [
        SelectChoice(name, words)
        for name, words in budget_pages.ACTIONS.items()
        if name != "suspend" or payer.kind == "key"
    ]


def _form(payer: Payer, form: BudgetForm, status: int = 200) -> Response:
    (row,) = budget_pages.rows([payer])
    return render(
        "admin/budgets/detail.html",
        status=status,
        row=row,
        form=form,
        kinds=budget_pages.KINDS,
        history=history_lines(budget_pages.history(payer, whole=True)),
    )
