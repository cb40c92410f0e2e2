"""Everybody's requests, for admins."""

from __future__ import annotations

from flask import Blueprint, Response

from app.blueprints.admin.person import me
from app.web import usage_pages

bp = Blueprint("activity", __name__)


@bp.get("/admin/activity")
def index() -> Response:
    return usage_pages.activity(me(), usage_pages.ADMIN, "admin/activity/index.html", "portal/activity/_activity.html")


@bp.get("/admin/activity/<id>")
def one_request(id: str) -> Response:
    return usage_pages.one(me(), usage_pages.ADMIN, id)
