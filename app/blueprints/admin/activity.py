"""Everyone's requests, for admins."""

from __future__ import annotations

from flask import Blueprint, Response

from app.blueprints.admin.person import me
from app.pages import usage_routes

bp = Blueprint("activity", __name__)


@bp.get("/admin/activity")
def index() -> Response:
    return usage_routes.activity(
        me(), usage_routes.ADMIN, "admin/activity/index.html", "portal/activity/_activity.html"
    )


@bp.get("/admin/activity/<id>")
def detail(id: str) -> Response:
    return usage_routes.one(me(), usage_routes.ADMIN, id)
