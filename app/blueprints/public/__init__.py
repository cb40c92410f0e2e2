"""The door that is open to everybody: signing in and out, and changing one's password."""

from __future__ import annotations

from flask import Flask

from app.blueprints.public.sign_in import bp


def open_door(app: Flask) -> None:
    app.register_blueprint(bp)
