"""Credits: room given back to a budget's current period, with a reason, and the list of past credits."""

from __future__ import annotations

import re
from typing import Any

from flask import Blueprint, Response, request, url_for
from flask_wtf import FlaskForm
from wtforms import HiddenField, TextAreaField
from wtforms.validators import InputRequired, Length

from app import current
from app.blueprints.admin.person import me
from app.domain import payers
from app.domain.errors import DomainError, NotFound
from app.domain.payers import Payer
from app.extensions import transaction
from app.ledger.entries import UsageEntry
from app.metering import money
from app.pages import budgets as budget_pages
from app.pages.budget_forms import amount_field
from app.runtime.ids import new_id
from app.web import exports
from app.web.forms import blame
from app.web.lists import Listing, list_page
from app.web.render import render, see_other, toast_next
from app.workflows import credits
from app.workflows.credits import LONGEST_REASON

NAME = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")  # the format of `new_id`
COLUMNS = {"amount": -UsageEntry.moved_nano, "given": UsageEntry.at_ms}

EXPORT_COLUMNS: dict[str, Any] = {
    "id": lambda entry: entry.request_id,
    "at": lambda entry: entry.at,
    "scope": lambda entry: credits.from_entry(entry).kind,
    "scope_id": lambda entry: credits.from_entry(entry).scope_id,
    "amount": lambda entry: money.text(-entry.moved_nano),
    "by": lambda entry: credits.from_entry(entry).by,
    "reason": lambda entry: credits.from_entry(entry).reason,
}

bp = Blueprint("credits", __name__)


class CreditForm(FlaskForm):
    """A credit. `once` is its id, so sending the form twice gives one credit."""

    once = HiddenField()
    scope = HiddenField()
    amount = amount_field(
        "Amount", "So much more may be spent in the running period.", [InputRequired("Enter an amount.")]
    )
    reason = TextAreaField(
        "Reason",
        [InputRequired("Enter a reason."), Length(max=LONGEST_REASON, message="Use at most %(max)d characters.")],
        description="It is kept with the credit.",
    )


@bp.get("/admin/credits")
def index() -> Response:
    def page(listing: Listing[UsageEntry]) -> dict[str, Any]:
        page_credits = [credits.from_entry(entry) for entry in listing.items]
        return {
            "credits": page_credits,
            "payer_of": payers.read((credit.kind, credit.scope_id) for credit in page_credits),
        }

    return list_page(
        "admin/credits",
        credits.all_(),
        COLUMNS,
        file=lambda file_format, rows: exports.answer(file_format, "credits", EXPORT_COLUMNS, rows),
        page=page,
        kinds=budget_pages.KINDS,
    )


@bp.get("/admin/credits/new")
def new() -> Response:
    scope = request.args.get("scope", "")
    form = CreditForm(formdata=None, scope=scope, once=new_id())
    return _form(_payer(scope), form)


@bp.post("/admin/credits")
def give() -> Response:
    form = CreditForm()
    payer = _payer(form.scope.data or "")
    if not form.validate_on_submit():
        return _form(payer, form, 422)
    id = form.once.data or ""
    id = id if NAME.fullmatch(id) else new_id()
    try:
        credit = transaction(
            credits.give,
            current.redis(),
            id,
            *payer.scope,
            by=me(),
            amount=(form.amount.data or "").strip(),
            reason=form.reason.data or "",
        )
    except DomainError as error:
        blame(form, error)
        return _form(payer, form, error.status)
    toast_next("success", f"{money.text(credit.amount_nano)} {current.config().portal.currency} more for {payer.name}.")
    return see_other(url_for("admin.credits.index"))


def _payer(scope: str) -> Payer:
    kind, slash, id = scope.partition("/")
    if not slash:
        raise NotFound("Say whose budget it is: go to its page.")
    return payers.get_visible(me(), kind, id)


def _form(payer: Payer, form: CreditForm, status: int = 200) -> Response:
    (row,) = budget_pages.rows([payer])
    return render("admin/credits/new.html", status=status, form=form, row=row, kinds=budget_pages.KINDS)
