"""Deliveries: mails and webhooks that are pending, sent or given up, why, and a button to send one again."""

from __future__ import annotations

from flask import Blueprint, Response, url_for

from app import current
from app.blueprints.admin.person import me
from app.domain import deliveries
from app.domain.deliveries import CHANNELS, STATES, TRIES
from app.domain.errors import DomainError
from app.extensions import transaction
from app.web import exports
from app.web.lists import filters_from_request, list_page
from app.web.render import see_other, toast_next

EXPORT_COLUMNS = {
    "id": lambda one: one.id,
    "at": lambda one: one.at,
    "channel": lambda one: one.channel,
    "target": lambda one: one.target,
    "kind": lambda one: one.kind,
    "state": lambda one: one.state,
    "attempts": lambda one: one.attempts,
    "last_error": lambda one: one.last_error,
    "done_at": lambda one: one.done_at,
}

bp = Blueprint("deliveries", __name__)


@bp.get("/admin/deliveries")
def index() -> Response:
    filters = filters_from_request(longest=200, state=STATES, channel=CHANNELS)
    config = current.config()
    return list_page(
        "admin/deliveries",
        deliveries.search(state=filters["state"], channel=filters["channel"], search=filters.search),
        file=lambda file_format, rows: exports.answer(file_format, "deliveries", EXPORT_COLUMNS, rows),
        search=filters.search,
        state=filters["state"],
        channel=filters["channel"],
        most_tries=TRIES,
        mail_host=config.mail.host,
        webhook=bool(config.webhook.url),
        signed=bool(config.webhook.secret),
    )


@bp.post("/admin/deliveries/<id>/sending")
def send_again(id: str) -> Response:
    delivery = deliveries.delivery(id)
    try:
        transaction(deliveries.send_again, delivery, by=me())
    except DomainError as error:
        toast_next("warning", error.message)
    else:
        toast_next("success", "It is tried again now.")
    return see_other(url_for("admin.deliveries.index"))
