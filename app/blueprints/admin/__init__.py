"""The admins' door: what they decide, the upstreams and models they offer, and what everybody used.

Who may only read sees all of it; changes are refused here, before any page is asked.
"""

from __future__ import annotations

from flask import Flask
from flask_login import current_user

from app.pages.menu import init_menu
from app.web.doors import door_of
from app.web.sign_in import require_admin

READ_ONLY = "Your role may read everything here and change nothing."


def register(app: Flask) -> None:
    """Serves the admins' pages from `app`."""
    door = door_of(__name__, "admin")
    door.before_request(require_admin)
    door.context_processor(_locks)
    app.register_blueprint(door)
    init_menu(app)


def _locks() -> dict[str, str | None]:
    """Why this person may change nothing, for the controls to tell; None for who may."""
    return {"locked": None if getattr(current_user, "is_admin", False) else READ_ONLY}
