"""Dismisses the announcement: a cookie remembers which one this browser does not show again."""

from __future__ import annotations

from flask import Blueprint, Response, request

from app import current
from app.pages.menu import DISMISSED
from app.web.render import see_other
from app.web.sign_in import safe_next

REMEMBERED_S = 180 * 24 * 3600

bp = Blueprint("announcement", __name__)


@bp.post("/announcements/<id>/dismissal")
def dismiss(id: str) -> Response:
    response = see_other(safe_next(request.args.get("next")))
    response.set_cookie(
        DISMISSED,
        id[:36],
        max_age=REMEMBERED_S,
        httponly=True,
        samesite="Lax",
        secure=current.config().secure_cookies,
    )
    return response
