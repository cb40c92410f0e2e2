"""The portal's door: what a person does with models, subscriptions, keys and the record of what they used."""

from __future__ import annotations

from flask import Blueprint, Flask

from app.blueprints.portal import (
    activity,
    budgets,
    catalog,
    home,
    key_settings,
    keys,
    notices,
    reference,
    subscriptions,
    team_members,
    teams,
    usage,
)
from app.pages.menu import init_menu
from app.web.sign_in import require_person

PAGES = (
    home,
    catalog,
    subscriptions,
    keys,
    key_settings,
    teams,
    team_members,
    budgets,
    usage,
    activity,
    notices,
    reference,
)


def open_door(app: Flask) -> None:
    """Serves the portal from `app`."""
    door = Blueprint("portal", __name__)
    door.before_request(require_person)
    for page in PAGES:
        page.open_on(door)
    app.register_blueprint(door)
    init_menu(app)
