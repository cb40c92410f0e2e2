"""One's own subscriptions: what was asked for, what was decided and why, and the way out of each."""

from __future__ import annotations

from flask import Blueprint, Response, request, url_for
from werkzeug.wrappers import Response as AnyResponse

from app.blueprints.portal.person import me
from app.domain import keys, subscriptions
from app.domain.errors import Conflict
from app.domain.subscriptions import STATUSES
from app.extensions import transaction
from app.web.lists import page_of
from app.web.render import render, see_other, toast_next


def open_on(door: Blueprint) -> None:
    door.add_url_rule("/subscriptions", "subscriptions", index)
    door.get("/subscriptions/<id>/cancellation")(cancellation)
    door.post("/subscriptions/<id>/cancellation")(cancel)


def index() -> Response:
    status = request.args.get("status", "")
    status = status if status in STATUSES else ""
    person = me()
    found = page_of(subscriptions.of(person, status=status or None))
    return render(
        "portal/subscriptions/index.html",
        "portal/subscriptions/_list.html",
        found=found,
        users_of={one.id: keys.using(person, one.model_name) for one in found.items if one.status == "active"},
        chosen=status,
        statuses=STATUSES,
    )


def cancellation(id: str) -> AnyResponse:
    """The page that asks whether it is meant; scripts show the same question in a dialog."""
    found = subscriptions.reach(me(), id)
    if not found.is_live:
        return see_other(url_for("portal.subscriptions"))
    return render(
        "portal/subscriptions/cancellation.html",
        "portal/subscriptions/_question.html",
        subscription=found,
        affected=keys.using(found.person, found.model_name),
    )


def cancel(id: str) -> Response:
    person = me()
    found = subscriptions.reach(person, id, change=True)
    name, was_pending = found.model_name, found.status == "pending"
    try:
        transaction(subscriptions.cancel, found, by=person)
    except Conflict as error:
        toast_next("info", error.message)
    else:
        done = "Your request for {} is withdrawn." if was_pending else "Your subscription to {} is cancelled."
        toast_next("success", done.format(name))
    return see_other(url_for("portal.subscriptions"))
