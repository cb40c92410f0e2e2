"""The door that is open to everyone: signing in and out, changing a password, invitations, and dismissing the
announcement."""

from __future__ import annotations

from flask import Flask

from app.web.doors import door_of


def register(app: Flask) -> None:
    """Serves the pages that need no account from `app`."""
    app.register_blueprint(door_of(__name__, "public"))
