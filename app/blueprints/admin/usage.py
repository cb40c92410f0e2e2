"""Usage over everyone, for admins: the person's own page with all people in it, and who and what used most."""

from __future__ import annotations

from flask import Blueprint, Response

from app.blueprints.admin.person import me
from app.domain import budgets
from app.pages import usage_routes

bp = Blueprint("usage", __name__)


@bp.get("/admin/usage")
def index() -> Response:
    return usage_routes.usage(
        me(),
        usage_routes.ADMIN,
        "admin/usage/index.html",
        "portal/usage/_usage.html",
        budgets=[("The organisation", budgets.standing("organisation", "default"))],
        has_key=True,
    )
