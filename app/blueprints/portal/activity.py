"""Your own requests: each with its attempts and how its cost was computed, and for a day why one was refused."""

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
    """Redirects from a request's former address, because people may have saved links."""
    return redirect(url_for("portal.activity.detail", id=id), 301)
