"""The admins' door: what they decide, the providers and models they offer, and everyone's usage.

People who may only read see all of it. Their changes are refused here, before any view runs.
"""

from __future__ import annotations

from flask import Flask
from flask_login import current_user

from app.pages.menu import init_menu
from app.web.doors import door_of
from app.web.sign_in import guard

READ_ONLY = "Read-only access: your role can’t make changes."


def register(app: Flask) -> None:
    """Serves the admins' pages from `app`."""
    door = door_of(__name__, "admin")
    door.before_request(guard)
    door.context_processor(_locks)
    app.register_blueprint(door)
    init_menu(app)


def _locks() -> dict[str, str | None]:
    """The template variable `locked`: why this person cannot change anything, or None for those who can."""
    return {"locked": None if getattr(current_user, "is_admin", False) else READ_ONLY}
