"""The door that is open to everybody: signing in and out, one's password, invitations, and putting a banner away."""

from __future__ import annotations

from flask import Flask

from app.web.doors import door_of


def register(app: Flask) -> None:
    """Serves the pages that need no account from `app`."""
    app.register_blueprint(door_of(__name__, "public"))
