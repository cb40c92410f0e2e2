"""One's own requests, each with its tries, the sum behind its cost, and for a day why one was refused."""

from __future__ import annotations

from flask import Blueprint, Response, redirect, url_for
from werkzeug.wrappers import Response as AnyResponse

from app.blueprints.portal.person import me
from app.pages import usage_routes


def open_on(door: Blueprint) -> None:
    door.add_url_rule("/activity", "activity", index)
    door.add_url_rule("/activity/<id>", "one_request", one_request)
    door.add_url_rule("/requests/<id>", "former_request", former_request)


def index() -> Response:
    return usage_routes.activity(
        me(), usage_routes.PORTAL, "portal/activity/index.html", "portal/activity/_activity.html"
    )


def one_request(id: str) -> Response:
    return usage_routes.one(me(), usage_routes.PORTAL, id)


def former_request(id: str) -> AnyResponse:
    """Where a request was before; links to it may have been kept."""
    return redirect(url_for("portal.one_request", id=id), 301)
