"""Everyone's usage, for admins: the same page as a person's own, with the top users, teams and providers."""

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
