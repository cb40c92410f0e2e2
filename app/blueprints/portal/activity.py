"""One's own requests, each with its tries, the sum behind its cost, and for a day why one was refused."""

from __future__ import annotations

from flask import Blueprint, Response, redirect, url_for
from werkzeug.wrappers import Response as AnyResponse

from app.blueprints.portal.person import me
from app.pages import usage_routes

bp = Blueprint("activity", __name__)


@bp.get("/activity")
def index() -> Response:
    return usage_routes.activity(
        me(), usage_routes.PORTAL, "portal/activity/index.html", "portal/activity/_activity.html"
    )


@bp.get("/activity/<id>")
def detail(id: str) -> Response:
    return usage_routes.one(me(), usage_routes.PORTAL, id)


@bp.get("/requests/<id>")
def former(id: str) -> AnyResponse:
    """Where a request was before; links to it may have been kept."""
    return redirect(url_for("portal.activity.detail", id=id), 301)
