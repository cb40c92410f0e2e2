"""Your own subscriptions: what you requested, what was decided and why, and what you can do next: cancel, request again
after a denial, or request a later end."""

from __future__ import annotations

from typing import Any

from flask import Blueprint, Response, url_for
from flask_wtf import FlaskForm
from werkzeug.wrappers import Response as AnyResponse
from wtforms import TextAreaField
from wtforms.validators import Length

from app.blueprints.portal.person import me
from app.domain import budgets, keys, subscriptions
from app.domain.errors import Conflict, DomainError, Forbidden, Invalid
from app.domain.keys import ApiKey
from app.domain.subscriptions import LONGEST_TEXT, ORDERS, STATUSES, Subscription
from app.extensions import db, transaction
from app.metering import money
from app.web import exports
from app.web.forms import blame
from app.web.lists import filters_from_request, list_page
from app.web.render import render, see_other, toast_next
from app.web.request_cache import memberships

MINE = "mine"  # the filter for personal subscriptions
COLUMNS = {name: ORDERS[name] for name in ("model", "status", "asked", "ends")}


def _price(subscription: Subscription, name: str) -> str | None:
    price = subscription.model.price if subscription.model else None
    amount = getattr(price, name) if price else None
    return money.optional_text(amount)


EXPORT_COLUMNS: dict[str, Any] = {
    "id": lambda one: one.id,
    "model": lambda one: one.model_name,
    "team_id": lambda one: one.team_id,
    "team": lambda one: one.team.name if one.team else None,
    "providers": lambda one: providers_of(one),
    "status": lambda one: one.status,
    "input_per_mtok": lambda one: _price(one, "input_per_mtok"),
    "output_per_mtok": lambda one: _price(one, "output_per_mtok"),
    "purpose": lambda one: one.justification,
    "requested_at": lambda one: one.created_at,
    "decided_at": lambda one: one.decided_at,
    "decided_by": lambda one: one.decided_by,
    "comment": lambda one: one.decision_reason,
    "expires_at": lambda one: one.expires_at,
}


class RenewalForm(FlaskForm):
    """Requests a later end."""

    reason = TextAreaField(
        "Why do you need it longer?",
        [Length(max=LONGEST_TEXT, message="Use at most %(max)d characters.")],
        description=f"An administrator reads this before deciding. At most {LONGEST_TEXT} characters.",
    )


class ReviewForm(FlaskForm):
    """Requests access again after a denial or an end."""

    justification = TextAreaField(
        "What do you need it for?",
        [Length(max=LONGEST_TEXT, message="Use at most %(max)d characters.")],
        description=f"An administrator reads this together with the former decision. At most {LONGEST_TEXT} characters.",
    )


bp = Blueprint("subscriptions", __name__)


@bp.get("/subscriptions")
def index() -> Response:
    person = me()
    joined = memberships(person)
    filters = filters_from_request(status=STATUSES, team={MINE, *(one.team_id for one in joined)})
    query = subscriptions.shared_with(person, search=filters.search, status=filters["status"])
    if team_filter := filters["team"]:
        team_id = subscriptions.Subscription.team_id
        query = query.where(team_id.is_(None) if team_filter == MINE else team_id == team_filter)
    return list_page(
        "portal/subscriptions",
        query,
        COLUMNS,
        file=lambda file_format, rows: exports.answer(file_format, "subscriptions", EXPORT_COLUMNS, rows),
        page=lambda listing: {
            "users_of": keys.paid_by(one for one in listing.items if one.status == "active"),
            "may_end": {one.id for one in listing.items if one.is_live and subscriptions.may_change(person, one)},
            "standings": {
                one.id: one for one in budgets.standings([("subscription", one.id) for one in listing.items])
            },
            "providers": {one.id: providers_of(one) for one in listing.items},
        },
        memberships=joined,
        whose=team_filter,
        mine=MINE,
        search=filters.search,
        chosen=filters["status"],
        statuses=STATUSES,
    )


@bp.get("/subscriptions/<id>")
def detail(id: str) -> Response:
    return _page(subscriptions.get_visible(me(), id), RenewalForm(formdata=None), ReviewForm(formdata=None))


@bp.get("/subscriptions/<id>/cancellation")
def cancellation(id: str) -> AnyResponse:
    """The confirmation page. Scripts show the same question in a dialog."""
    subscription = subscriptions.get_visible(me(), id)
    if not subscription.is_live:
        return see_other(url_for("portal.subscriptions.detail", id=id))
    return render(
        "portal/subscriptions/cancellation.html",
        "portal/subscriptions/_question.html",
        subscription=subscription,
        affected=_keys_using(subscription),
    )


@bp.post("/subscriptions/<id>/cancellation")
def cancel(id: str) -> Response:
    person = me()
    subscription = subscriptions.get_visible(person, id, change=True)
    name, was_pending, own = (
        subscription.model_name,
        subscription.status == "pending",
        subscription.person_id == person.id,
    )
    team_id = subscription.team_id
    whose = (
        f"{subscription.team.name}’s" if subscription.team else "Your" if own else f"{subscription.person.username}’s"
    )
    try:
        transaction(subscriptions.cancel, subscription, by=person)
    except Conflict as error:
        toast_next("info", error.message)
    else:
        message = "{} request for {} is withdrawn." if was_pending else "{} subscription to {} is cancelled."
        toast_next("success", message.format(whose, name))
    if team_id:
        return see_other(url_for("portal.teams.detail", id=team_id, tab="models"))
    return see_other(url_for("portal.subscriptions.index") if own else url_for("portal.subscriptions.detail", id=id))


@bp.post("/subscriptions/<id>/renewal")
def renew(id: str) -> Response:
    person = me()
    subscription = subscriptions.get_visible(person, id)
    form = RenewalForm()
    if not form.validate_on_submit():
        return _page(subscription, form, ReviewForm(formdata=None), 422)
    try:
        transaction(subscriptions.ask_renewal, subscription, by=person, reason=form.reason.data)
    except Conflict as error:
        toast_next("info", error.message)
    except Invalid as error:
        blame(form, error)
        return _page(subscription, form, ReviewForm(formdata=None), 422)
    else:
        toast_next("success", "Your request for renewal is sent. An administrator will decide.")
    return see_other(url_for("portal.subscriptions.detail", id=id))


@bp.post("/subscriptions/<id>/review")
def review(id: str) -> Response:
    person = me()
    subscription = _own(id)
    form = ReviewForm()
    if subscription.model and subscription.model.restricted and not (form.justification.data or "").strip():
        form.validate()
        form.justification.errors = ["Enter what you need this model for."]
        return _page(subscription, RenewalForm(formdata=None), form, 422)
    if not form.validate_on_submit():
        return _page(subscription, RenewalForm(formdata=None), form, 422)
    try:
        created, is_new = transaction(
            subscriptions.request_again, subscription, by=person, justification=form.justification.data or None
        )
    except Conflict as error:
        toast_next("info", error.message)
        return see_other(url_for("portal.subscriptions.detail", id=id))
    except DomainError as error:
        blame(form, error)
        return _page(subscription, RenewalForm(formdata=None), form, 422)
    if not is_new:
        toast_next("info", f"You have asked for {created.model_name} already: it is {created.status}.")
    elif created.status == "pending":
        toast_next("success", f"Your request for {created.model_name} is sent. An administrator will decide.")
    else:
        toast_next("success", f"You are subscribed to {created.model_name}.")
    return see_other(url_for("portal.subscriptions.detail", id=created.id))


def providers_of(subscription: Subscription) -> list[str]:
    """Returns the names of the providers that serve the model."""
    return (
        sorted({deployment.provider.name for deployment in subscription.model.deployments})
        if subscription.model
        else []
    )


def _keys_using(subscription: Subscription) -> list[ApiKey]:
    """The keys whose calls the subscription pays for: those of its team, or the person's own."""
    return keys.using(subscription.person, subscription.model_name, subscription.team)


def _own(id: str) -> Subscription:
    """Returns the person's own subscription with this id. Raises `Forbidden` for a subscription of somebody else."""
    subscription = subscriptions.get_visible(me(), id)
    if subscription.person_id != me().id:
        raise Forbidden("Only the person themselves can ask for this.")
    return subscription


def _page(subscription: Subscription, renewal: RenewalForm, again: ReviewForm, status: int = 200) -> Response:
    person = me()
    own = subscription.person_id == person.id
    live = (
        subscriptions.live(subscription.person, subscription.model, subscription.team) if subscription.model else None
    )
    restricted = subscription.model is not None and subscription.model.restricted
    renewal.reason.flags.required = True
    again.justification.flags.required = restricted
    return render(
        "portal/subscriptions/detail.html",
        status=status,
        subscription=subscription,
        own=own,
        may_change=subscriptions.may_change(person, subscription),
        may_renew=subscription.is_renewable and subscriptions.may_renew(person, subscription),
        providers=providers_of(subscription),
        standing=budgets.standing("subscription", subscription.id),
        affected=_keys_using(subscription) if subscription.status in ("active", "suspended") else [],
        live=live if live is not None and live.id != subscription.id else None,
        may_ask=own
        and live is None
        and subscription.model is not None
        and subscription.model.status in ("active", "deprecated"),
        former=list(db.session.scalars(subscriptions.former(subscription).limit(10))),
        renewal=renewal,
        again=again,
    )
