"""Subscriptions: people request models, admins decide, one request or many together."""

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
    """`limit` is a decimal, `timezone` an IANA name. If you leave them out, period and time zone stay; a new budget
    gets a month in UTC."""

    limit: Annotated[str, Meta(max_length=40)] | int
    period: Annotated[str, Meta(max_length=8)] | msgspec.UnsetType = msgspec.UNSET
    timezone: Annotated[str, Meta(max_length=64)] | msgspec.UnsetType = msgspec.UNSET

    def to_changes(self) -> dict[str, Any]:
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
    """`approve`, `deny` (with a reason), `suspend` or `resume`. For a requested renewal, `approve` sets the new end
    (none without `expires_at`) and `deny` keeps the old one."""

    decision: Annotated[str, Meta(max_length=16)]
    reason: Text | None = None
    budget: BudgetBody | None = None
    expires_at: datetime | None = None


class DecisionsBody(DecisionBody, kw_only=True):
    ids: Annotated[list[Id], Meta(min_length=1, max_length=200)]


class DecisionResult(msgspec.Struct, kw_only=True):
    """The result for one of many: its current `status`, or the `error` that it would have got alone."""

    id: str
    ok: bool
    status: str | None = None
    error: dict[str, str | None] | None = None


class DecisionResults(msgspec.Struct, kw_only=True):
    data: list[DecisionResult]


class Query(Cursored, kw_only=True):
    """`user` is for admins."""

    status: Status | None = None
    model: str | None = None
    team_id: str | None = None
    user: str | None = None


def show(subscription: subscriptions.Subscription) -> Subscription:
    return Subscription(
        id=subscription.id,
        model=subscription.model_name,
        username=subscription.person.username,
        team_id=subscription.team_id,
        status=subscription.status,
        justification=subscription.justification,
        reason=subscription.decision_reason,
        decided_by=subscription.decided_by,
        decided_at=subscription.decided_at,
        expires_at=subscription.expires_at,
        renewal_asked_at=subscription.renewal_asked_at,
        renewal_reason=subscription.renewal_reason,
        created_at=subscription.created_at,
        updated_at=subscription.updated_at,
        timeline=[
            SubscriptionStep(at=step.at, status=step.status, actor=step.actor, reason=step.reason)
            for step in subscription.timeline
        ],
    )


def utc(moment: datetime | None, field: str = "expires_at") -> datetime | None:
    """Returns a time of a body in UTC. Raises `Invalid` for a time without a zone."""
    try:
        if moment is None or moment.tzinfo is not None:
            return moment and moment.astimezone(UTC)
    except OverflowError:  # in UTC it is outside the years that Python supports
        pass
    raise Invalid("Enter a time with its zone, such as 2026-11-21T08:00:00Z.", field)


@route("GET", "/api/subscriptions", query=Query, answer=SubscriptionPage)
def index(query: Query) -> dict[str, Any]:
    """Lists your own subscriptions and those of your teams; admins see all."""
    rows = subscriptions.visible_to(me()).options(selectinload(subscriptions.Subscription.timeline))
    if query.status:
        rows = rows.where(subscriptions.Subscription.status == query.status)
    if query.model:
        rows = rows.where(subscriptions.Subscription.model_name == query.model)
    if query.team_id:
        rows = rows.where(subscriptions.Subscription.team_id == query.team_id)
    if query.user:
        person = identity.find(query.user)
        rows = rows.where(subscriptions.Subscription.person_id == (person.id if person else ""))
    return page(rows, show)


@route(
    "POST", "/api/subscriptions", answer=Subscription, status=201, also=(200,), body=SubscriptionRequest, writes=True
)
def create(body: SubscriptionRequest) -> tuple[Subscription, int]:
    """Requests a model, for yourself or for a team that you are in.

    201 with a new subscription; 200 with the live one, whichever team member requested it.
    """
    team = None if body.team_id is None else teams.get_visible(me(), body.team_id)
    model = catalog.find_model(body.model)
    if model is None:
        raise Invalid(f"There is no model named {body.model!r}.", "model")
    subscription, is_new = subscriptions.request(me(), model, by=me(), justification=body.justification, team=team)
    db.session.flush()
    db.session.refresh(subscription)
    return show(subscription), 201 if is_new else 200


@route("GET", "/api/subscriptions/<id>", answer=Subscription)
def detail(id: str) -> Subscription:
    """Returns one subscription."""
    return show(subscriptions.get_visible(me(), id))


@route("DELETE", "/api/subscriptions/<id>", status=204, writes=True)
def cancel(id: str) -> None:
    """Cancels a subscription, or withdraws a pending one."""
    subscriptions.cancel(subscriptions.get_visible(me(), id, change=True), by=me())


@route("POST", "/api/subscriptions/<id>/renewal", answer=Subscription, body=RenewalBody, writes=True)
def renew(id: str, body: RenewalBody) -> Subscription:
    """Requests a later end for an active subscription that ends within 14 days: your own, or one of a team that you
    own."""
    subscription = subscriptions.get_visible(me(), id)
    subscriptions.ask_renewal(subscription, by=me(), reason=body.reason)
    db.session.flush()
    db.session.refresh(subscription)
    return show(subscription)


def _decide(id: str, body: DecisionBody) -> subscriptions.Subscription:
    subscription = subscriptions.decide(
        subscriptions.get_visible(me(), id),
        body.decision,
        by=me(),
        reason=body.reason,
        expires_at=utc(body.expires_at),
        budget=body.budget.to_changes() if body.budget else None,
    )
    db.session.flush()
    db.session.refresh(subscription)
    return subscription


@route("POST", "/api/subscriptions/<id>/decision", scope="admin", answer=Subscription, body=DecisionBody, writes=True)
def decide(id: str, body: DecisionBody) -> Subscription:
    """Decides on one subscription, as an admin."""
    return show(_decide(id, body))


@route("POST", "/api/subscriptions/decisions", scope="admin", answer=DecisionResults, body=DecisionsBody)
def decide_many(body: DecisionsBody) -> DecisionResults:
    """Makes the same decision on many subscriptions. Each succeeds or fails on its own."""
    results = []
    for id in dict.fromkeys(body.ids):
        try:
            status = transaction(lambda id=id: _decide(id, body).status)  # type: ignore[misc]
            results.append(DecisionResult(id=id, ok=True, status=status))
        except DomainError as error:
            fault = {"code": error.code, "message": error.message, "field": error.field}
            results.append(DecisionResult(id=id, ok=False, error=fault))
    return DecisionResults(data=results)
