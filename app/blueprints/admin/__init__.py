"""The admins' door: what they decide, the upstreams and models they offer, and what everybody used.

Who may only read sees all of it; changes are refused here, before any page is asked.
"""

from __future__ import annotations

from flask import Blueprint, Flask
from flask_login import current_user

from app.blueprints.admin import (
    activity,
    announcement,
    approvals,
    budget_requests,
    budgets,
    chargeback,
    credits,
    dead_letters,
    deliveries,
    invitations,
    keys,
    models,
    people,
    providers,
    rules,
    status,
    teams,
    usage,
)
from app.pages.menu import init_menu
from app.web.sign_in import require_admin

PAGES = (
    approvals.bp,
    budget_requests.bp,
    budgets.bp,
    credits.bp,
    rules.bp,
    providers.bp,
    models.bp,
    keys.bp,
    usage.bp,
    activity.bp,
    status.bp,
    dead_letters.bp,
    people.bp,
    teams.bp,
    chargeback.bp,
    invitations.bp,
    announcement.bp,
    deliveries.bp,
)
READ_ONLY = "Your role may read everything here and change nothing."


def open_door(app: Flask) -> None:
    """Serves the admins' pages from `app`."""
    door = Blueprint("admin", __name__)
    door.before_request(require_admin)
    door.context_processor(_locks)
    for page in PAGES:
        door.register_blueprint(page)
    app.register_blueprint(door)
    init_menu(app)


def _locks() -> dict[str, str | None]:
    """Why this person may change nothing, for the controls to tell; None for who may."""
    return {"locked": None if getattr(current_user, "is_admin", False) else READ_ONLY}
