"""One's own requests, each with its tries, the sum behind its cost, and for a day why one was refused."""

from __future__ import annotations

from flask import Blueprint, Response, redirect, url_for
from werkzeug.wrappers import Response as AnyResponse

from app.blueprints.portal.person import me
from app.web import usage_pages


def open_on(door: Blueprint) -> None:
    door.add_url_rule("/activity", "activity", index)
    door.add_url_rule("/activity/<id>", "one_request", one_request)
    door.add_url_rule("/requests/<id>", "former_request", former_request)


def index() -> Response:
    return usage_pages.activity(
        me(), usage_pages.PORTAL, "portal/activity/index.html", "portal/activity/_activity.html"
    )


def one_request(id: str) -> Response:
    return usage_pages.one(me(), usage_pages.PORTAL, id)


def former_request(id: str) -> AnyResponse:
    """Where a request was before; links to it may have been kept."""
    return redirect(url_for("portal.one_request", id=id), 301)
