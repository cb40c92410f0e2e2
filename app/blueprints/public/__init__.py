"""The door that is open to everybody: signing in and out, one's password, invitations, and putting a banner away."""

from __future__ import annotations

from flask import Flask

from app.blueprints.public import announcement, invitation, sign_in

PAGES = (sign_in.bp, invitation.bp, announcement.bp)


def open_door(app: Flask) -> None:
    for page in PAGES:
        app.register_blueprint(page)
