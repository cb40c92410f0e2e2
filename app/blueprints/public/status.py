"""The public status page: whether calls are accepted and how the open models do, for everyone. The setting
`portal.status_page` switches it on."""

from __future__ import annotations

from flask import Blueprint, Response

from app import current
from app.domain.errors import NotFound
from app.pages import public_status
from app.web.render import render

bp = Blueprint("status", __name__)


@bp.get("/status")
def index() -> Response:
    if not current.config().portal.status_page:
        raise NotFound("This page does not exist.")
    _, report = public_status.present()
    return render("public/status.html", report=report)
