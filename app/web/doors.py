"""Builds an HTML door from its folder: one module per noun, each with a blueprint named `bp`."""

from __future__ import annotations

import pkgutil
from importlib import import_module

from flask import Blueprint


def door_of(package: str, name: str) -> Blueprint:
    """Returns a blueprint that contains the blueprints of the package's modules. The view `index` with
    `@bp.get("/keys")` in `keys.py` gets the endpoint `portal.keys.index`. Modules without a `bp`, such as forms, add no
    routes."""
    door = Blueprint(name, package)
    for item in pkgutil.iter_modules(import_module(package).__path__):
        noun = getattr(import_module(f"{package}.{item.name}"), "bp", None)
        if noun is not None:
            door.register_blueprint(noun)
    return door
