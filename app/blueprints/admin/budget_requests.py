"""Requests to increase a budget, next to those for models: pending ones and decided ones."""

from __future__ import annotations

from typing import Any

from flask import Blueprint, Response
from sqlalchemy import func, select

from app.blueprints.admin.person import me
from app.domain import payers
from app.domain.person import Person
from app.metering import money
from app.pages.badges import badges
from app.web import exports
from app.web.lists import filters_from_request, list_page
from app.workflows import budget_requests
from app.workflows.budget_requests import STATUSES, BudgetRequest

WAITING, EVERYTHING = "pending", "all"
COLUMNS = {
    "person": select(func.lower(Person.username)).where(Person.id == BudgetRequest.person_id).scalar_subquery(),
    "amount": BudgetRequest.amount_nano,
    "asked": BudgetRequest.created_at,
}


EXPORT_COLUMNS: dict[str, Any] = {
    "id": lambda one: one.id,
    "user": lambda one: one.person.username,
    "scope": lambda one: one.scope_kind,
    "scope_id": lambda one: one.scope_id,
    "amount": lambda one: money.optional_text(one.amount_nano),
    "lasting": lambda one: one.lasting,
    "reason": lambda one: one.reason,
    "status": lambda one: one.status,
    "granted": lambda one: money.optional_text(one.granted_nano),
    "asked_at": lambda one: one.created_at,
    "decided_at": lambda one: one.decided_at,
    "decided_by": lambda one: one.decided_by,
    "comment": lambda one: one.decision_reason,
}

bp = Blueprint("budget_requests", __name__)


@bp.get("/admin/budget-requests")
def index() -> Response:
    filters = filters_from_request(status=(*STATUSES, EVERYTHING), defaults={"status": WAITING})
    query = budget_requests.visible_to(me())
    if filters["status"] != EVERYTHING:
        query = query.where(BudgetRequest.status == filters["status"])
    if filters.search:
        people = select(Person.id).where(Person.username.icontains(filters.search, autoescape=True))
        query = query.where(
            BudgetRequest.person_id.in_(people) | BudgetRequest.reason.icontains(filters.search, autoescape=True)
        )
    return list_page(
        "admin/budget_requests",
        query,
        COLUMNS,
        file=lambda file_format, rows: exports.answer(file_format, "budget-requests", EXPORT_COLUMNS, rows),
        page=lambda listing: {"payer_of": payers.read(one.scope for one in listing.items)},
        chosen=filters["status"],
        statuses=STATUSES,
        search=filters.search,
        badges=badges(me()),
    )
