"""The portal's door: what a person does with models, subscriptions, keys and their usage."""

from __future__ import annotations

from flask import Flask

from app.pages.menu import init_menu
from app.web.doors import door_of
from app.web.sign_in import guard


def register(app: Flask) -> None:
    """Serves the portal from `app`."""
    door = door_of(__name__, "portal")
    door.before_request(guard)
    app.register_blueprint(door)
    init_menu(app)
