"""The door that is open to everyone: signing in and out, changing a password, invitations, dismissing the announcement,
and the public status."""

from __future__ import annotations

from flask import Flask

from app.pages.public_status import init_public_status
from app.web.doors import door_of


def register(app: Flask) -> None:
    """Serves the pages that need no account from `app`."""
    init_public_status(app)
    app.register_blueprint(door_of(__name__, "public"))
