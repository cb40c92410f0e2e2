"""Asking for more of a budget, and the answers: by those whom it pays for, and by those who decide."""

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
    """`amount` is what was asked for, `granted` what was given; `lasting` means each period from then on."""

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
    """`scope` and `id` as in the address of the budget; `amount` a decimal; once unless `lasting`."""

    scope: Literal["organisation", "team", "member", "user", "subscription", "key"]
    id: Annotated[str, Meta(max_length=120)]
    amount: Amount
    reason: Words
    lasting: bool = False


class BudgetDecisionBody(Body, kw_only=True):
    """`grant` what was asked for, or `amount` instead; `deny` needs a reason."""

    decision: Literal["grant", "deny"]
    amount: Amount | None = None
    reason: Words | None = None


class Asked(Cursored, kw_only=True):
    status: Status | None = None


def show(found: budget_requests.BudgetRequest, payer: payers.Payer | None) -> BudgetRequest:
    return BudgetRequest(
        id=found.id,
        scope=found.scope_kind,
        scope_id=payer.public_id if payer else found.scope_id,
        username=found.person.username,
        amount=amount(found.amount_nano),
        lasting=found.lasting,
        reason=found.reason,
        status=found.status,
        granted=amount(found.granted_nano),
        decided_by=found.decided_by,
        decided_at=found.decided_at,
        decision_reason=found.decision_reason,
        created_at=found.created_at,
    )


@route("GET", "/api/budget-requests", query=Asked, answer=BudgetRequestPage)
def index(asked: Asked) -> dict[str, Any]:
    """One's own requests and those that one decides as a team's owner; everybody's for admins. Filter `status`."""
    found = budget_requests.visible_to(me())
    if asked.status:
        found = found.where(budget_requests.BudgetRequest.status == asked.status)
    answer = page(found, lambda one: one)
    known = payers.read(one.scope for one in answer["data"])
    answer["data"] = [show(one, known.get(one.scope)) for one in answer["data"]]
    return answer


@route("POST", "/api/budget-requests", answer=BudgetRequest, status=201, body=BudgetRequestBody, writes=True)
def create(body: BudgetRequestBody) -> BudgetRequest:
    """Asks for more of a budget that pays for one's calls, once or lastingly."""
    payer = payers.get_visible(me(), body.scope, body.id)
    made = budget_requests.ask(payer, by=me(), amount=body.amount, lasting=body.lasting, reason=body.reason)
    db.session.refresh(made)
    return show(made, payer)


@route("GET", "/api/budget-requests/<id>", answer=BudgetRequest)
def detail(id: str) -> BudgetRequest:
    """One request."""
    return _shown(id)


@route("DELETE", "/api/budget-requests/<id>", status=204, writes=True)
def withdraw(id: str) -> None:
    """Takes one's own request back while nobody has answered."""
    budget_requests.withdraw(budget_requests.get_visible(me(), id), by=me())


@route("POST", "/api/budget-requests/<id>/decision", answer=BudgetRequest, body=BudgetDecisionBody)
def decide(id: str, body: BudgetDecisionBody) -> BudgetRequest:
    """Grants or denies a request: by admins, and by a team's owners for its keys and its members' caps."""

    def made() -> None:
        budget_requests.decide(
            budget_requests.get_visible(me(), id), body.decision, by=me(), amount=body.amount, reason=body.reason
        )

    transaction(made)
    return _shown(id)


def _shown(id: str) -> BudgetRequest:
    found = budget_requests.get_visible(me(), id)
    return show(found, payers.read([found.scope]).get(found.scope))
