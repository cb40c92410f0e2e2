"""Requests to increase a budget, and their decisions: for the people whom the budget pays for, and for those who
decide."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from app.blueprints.api.contract import Body, Cursored, CursorPage, amount, me, page, route
from app.domain import payers
from app.extensions import db, transaction
from app.workflows import budget_requests
from app.workflows.budget_requests import LONGEST_TEXT, Status

Amount = Annotated[str, Meta(max_length=40)] | int
Words = Annotated[str, Meta(max_length=LONGEST_TEXT)]


class BudgetRequest(msgspec.Struct, kw_only=True):
    """`amount` was requested, `granted` was granted. `lasting` means each period from then on."""

    id: str
    scope: str
    scope_id: str
    username: str
    amount: str | None
    lasting: bool
    reason: str
    status: str
    granted: str | None
    decided_by: str | None
    decided_at: datetime | None
    decision_reason: str | None
    created_at: datetime


class BudgetRequestPage(CursorPage, kw_only=True):
    data: list[BudgetRequest]


class BudgetRequestBody(Body, kw_only=True):
    """`scope` and `id` as in the budget's URL. `amount` is a decimal. The increase is for this period only unless
    `lasting`."""

    scope: Literal["organisation", "team", "member", "user", "subscription", "key"]
    id: Annotated[str, Meta(max_length=120)]
    amount: Amount
    reason: Words
    lasting: bool = False


class BudgetDecisionBody(Body, kw_only=True):
    """`grant` grants the requested amount, or `amount` instead. `deny` needs a reason."""

    decision: Literal["grant", "deny"]
    amount: Amount | None = None
    reason: Words | None = None


class Query(Cursored, kw_only=True):
    status: Status | None = None


def show(budget_request: budget_requests.BudgetRequest, payer: payers.Payer | None) -> BudgetRequest:
    return BudgetRequest(
        id=budget_request.id,
        scope=budget_request.scope_kind,
        scope_id=payer.public_id if payer else budget_request.scope_id,
        username=budget_request.person.username,
        amount=amount(budget_request.amount_nano),
        lasting=budget_request.lasting,
        reason=budget_request.reason,
        status=budget_request.status,
        granted=amount(budget_request.granted_nano),
        decided_by=budget_request.decided_by,
        decided_at=budget_request.decided_at,
        decision_reason=budget_request.decision_reason,
        created_at=budget_request.created_at,
    )


@route("GET", "/api/budget-requests", query=Query, answer=BudgetRequestPage)
def index(query: Query) -> dict[str, Any]:
    """Lists your own requests and those that you decide as a team's owner; admins see all."""
    rows = budget_requests.visible_to(me())
    if query.status:
        rows = rows.where(budget_requests.BudgetRequest.status == query.status)
    result = page(rows, lambda item: item)
    known = payers.read(item.scope for item in result["data"])
    result["data"] = [show(item, known.get(item.scope)) for item in result["data"]]
    return result


@route("POST", "/api/budget-requests", answer=BudgetRequest, status=201, body=BudgetRequestBody, writes=True)
def create(body: BudgetRequestBody) -> BudgetRequest:
    """Requests an increase of a budget that pays for your calls, for this period or for every period."""
    payer = payers.get_visible(me(), body.scope, body.id)
    created = budget_requests.ask(payer, by=me(), amount=body.amount, lasting=body.lasting, reason=body.reason)
    db.session.refresh(created)
    return show(created, payer)


@route("GET", "/api/budget-requests/<id>", answer=BudgetRequest)
def detail(id: str) -> BudgetRequest:
    """Returns one request."""
    return _by_id(id)


@route("DELETE", "/api/budget-requests/<id>", status=204, writes=True)
def withdraw(id: str) -> None:
    """Withdraws your own request while it is pending."""
    budget_requests.withdraw(budget_requests.get_visible(me(), id), by=me())


@route("POST", "/api/budget-requests/<id>/decision", answer=BudgetRequest, body=BudgetDecisionBody)
def decide(id: str, body: BudgetDecisionBody) -> BudgetRequest:
    """Grants or denies a request. Admins can, and a team's owners for its keys and its members' caps."""

    def work() -> None:
        budget_requests.decide(
            budget_requests.get_visible(me(), id), body.decision, by=me(), amount=body.amount, reason=body.reason
        )

    transaction(work)
    return _by_id(id)


def _by_id(id: str) -> BudgetRequest:
    budget_request = budget_requests.get_visible(me(), id)
    return show(budget_request, payers.read([budget_request.scope]).get(budget_request.scope))
