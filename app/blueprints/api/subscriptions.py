"""Subscriptions: people ask for models, admins decide, one or many at once."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any

import msgspec
from msgspec import Meta
from sqlalchemy.orm import selectinload

from app.blueprints.api.contract import Body, Cursored, CursorPage, me, page, route
from app.domain import catalog, identity, subscriptions, teams
from app.domain.errors import DomainError, Invalid
from app.domain.subscriptions import Status
from app.extensions import db, transaction

Id = Annotated[str, Meta(max_length=36)]
Text = Annotated[str, Meta(max_length=2000)]


class BudgetBody(Body, kw_only=True):
    """`limit` a decimal; `timezone` an IANA name. Left out, period and time zone stay; a new budget's are a month, UTC."""

    limit: Annotated[str, Meta(max_length=40)] | int
    period: Annotated[str, Meta(max_length=8)] | msgspec.UnsetType = msgspec.UNSET
    timezone: Annotated[str, Meta(max_length=64)] | msgspec.UnsetType = msgspec.UNSET

    def given(self) -> dict[str, Any]:
        return {name: value for name, value in msgspec.structs.asdict(self).items() if value is not msgspec.UNSET}


class SubscriptionStep(msgspec.Struct, kw_only=True):
    at: datetime
    status: str
    actor: str
    reason: str | None


class Subscription(msgspec.Struct, kw_only=True):
    id: str
    model: str
    username: str
    team_id: str | None
    status: str
    justification: str | None
    reason: str | None
    decided_by: str | None
    decided_at: datetime | None
    expires_at: datetime | None
    renewal_asked_at: datetime | None
    renewal_reason: str | None
    created_at: datetime
    updated_at: datetime
    timeline: list[SubscriptionStep]


class SubscriptionPage(CursorPage, kw_only=True):
    data: list[Subscription]


class SubscriptionRequest(Body, kw_only=True):
    model: Annotated[str, Meta(max_length=200)]
    team_id: Id | None = None
    justification: Text | None = None


class RenewalBody(Body, kw_only=True):
    reason: Text


class DecisionBody(Body, kw_only=True):
    """`approve`, `deny` (with a reason), `suspend` or `resume`. While a renewal is asked for, approve sets the new end
    (none without `expires_at`) and deny keeps the old one."""

    decision: Annotated[str, Meta(max_length=16)]
    reason: Text | None = None
    budget: BudgetBody | None = None
    expires_at: datetime | None = None


class DecisionsBody(DecisionBody, kw_only=True):
    ids: Annotated[list[Id], Meta(min_length=1, max_length=200)]


class DecisionResult(msgspec.Struct, kw_only=True):
    """What became of one of many: `status` as it is now, or `error` as it would have been answered alone."""

    id: str
    ok: bool
    status: str | None = None
    error: dict[str, str | None] | None = None


class DecisionResults(msgspec.Struct, kw_only=True):
    data: list[DecisionResult]


class Asked(Cursored, kw_only=True):
    """`user` is for admins."""

    status: Status | None = None
    model: str | None = None
    team_id: str | None = None
    user: str | None = None


def show(found: subscriptions.Subscription) -> Subscription:
    return Subscription(
        id=found.id,
        model=found.model_name,
        username=found.person.username,
        team_id=found.team_id,
        status=found.status,
        justification=found.justification,
        reason=found.decision_reason,
        decided_by=found.decided_by,
        decided_at=found.decided_at,
        expires_at=found.expires_at,
        renewal_asked_at=found.renewal_asked_at,
        renewal_reason=found.renewal_reason,
        created_at=found.created_at,
        updated_at=found.updated_at,
        timeline=[
            SubscriptionStep(at=step.at, status=step.status, actor=step.actor, reason=step.reason)
            for step in found.timeline
        ],
    )


def utc(moment: datetime | None, field: str = "expires_at") -> datetime | None:
    """An instant of a body, in UTC; one without its zone cannot be understood."""
    try:
        if moment is None or moment.tzinfo is not None:
            return moment and moment.astimezone(UTC)
    except OverflowError:  # its zone leads beyond the years that are counted
        pass
    raise Invalid("Give a time with its zone, such as 2026-11-21T08:00:00Z.", field)


@route("GET", "/api/subscriptions", query=Asked, answer=SubscriptionPage)
def index(asked: Asked) -> dict[str, Any]:
    """One's own subscriptions and those of one's teams; everybody's for admins.

    Filters `status`, `model`, `team_id`, and for admins `user`.
    """
    found = subscriptions.visible_to(me()).options(selectinload(subscriptions.Subscription.timeline))
    if asked.status:
        found = found.where(subscriptions.Subscription.status == asked.status)
    if asked.model:
        found = found.where(subscriptions.Subscription.model_name == asked.model)
    if asked.team_id:
        found = found.where(subscriptions.Subscription.team_id == asked.team_id)
    if asked.user:
        person = identity.find(asked.user)
        found = found.where(subscriptions.Subscription.person_id == (person.id if person else ""))
    return page(found, show)


@route(
    "POST", "/api/subscriptions", answer=Subscription, status=201, also=(200,), body=SubscriptionRequest, writes=True
)
def create(body: SubscriptionRequest) -> tuple[Subscription, int]:
    """Asks for a model, for oneself or for a team that one is in.

    201 with a new subscription, 200 with the one that is live already, whoever of the team asked for it.
    """
    team = None if body.team_id is None else teams.get_visible(me(), body.team_id)
    model = catalog.find_model(body.model)
    if model is None:
        raise Invalid(f"There is no model named {body.model!r}.", "model")
    found, new = subscriptions.request(me(), model, by=me(), justification=body.justification, team=team)
    db.session.flush()
    db.session.refresh(found)
    return show(found), 201 if new else 200


@route("GET", "/api/subscriptions/<id>", answer=Subscription)
def detail(id: str) -> Subscription:
    """One subscription."""
    return show(subscriptions.get_visible(me(), id))


@route("DELETE", "/api/subscriptions/<id>", status=204, writes=True)
def cancel(id: str) -> None:
    """Ends a subscription, or withdraws a pending one."""
    subscriptions.cancel(subscriptions.get_visible(me(), id, change=True), by=me())


@route("POST", "/api/subscriptions/<id>/renewal", answer=Subscription, body=RenewalBody, writes=True)
def renew(id: str, body: RenewalBody) -> Subscription:
    """Asks for a later end of an active subscription that ends within 14 days: one's own, or that of a team one owns."""
    found = subscriptions.get_visible(me(), id)
    subscriptions.ask_renewal(found, by=me(), reason=body.reason)
    db.session.flush()
    db.session.refresh(found)
    return show(found)


def _decide(id: str, body: DecisionBody) -> subscriptions.Subscription:
    found = subscriptions.decide(
        subscriptions.get_visible(me(), id),
        body.decision,
        by=me(),
        reason=body.reason,
        expires_at=utc(body.expires_at),
        budget=body.budget.given() if body.budget else None,
    )
    db.session.flush()
    db.session.refresh(found)
    return found


@route("POST", "/api/subscriptions/<id>/decision", scope="admin", answer=Subscription, body=DecisionBody, writes=True)
def decide(id: str, body: DecisionBody) -> Subscription:
    """An admin's decision on one."""
    return show(_decide(id, body))


@route("POST", "/api/subscriptions/decisions", scope="admin", answer=DecisionResults, body=DecisionsBody)
def decide_many(body: DecisionsBody) -> DecisionResults:
    """The same decision on many; each is made or refused by itself."""
    results = []
    for id in dict.fromkeys(body.ids):
        try:
            status = transaction(lambda id=id: _decide(id, body).status)  # type: ignore[misc]
            results.append(DecisionResult(id=id, ok=True, status=status))
        except DomainError as error:
            fault = {"code": error.code, "message": error.message, "field": error.field}
            results.append(DecisionResult(id=id, ok=False, error=fault))
    return DecisionResults(data=results)
