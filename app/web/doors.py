"""How every door of HTML is put together: its folder has a module a noun, and each brings a blueprint named `bp`."""

from __future__ import annotations

import pkgutil
from importlib import import_module

from flask import Blueprint


def door_of(package: str, name: str) -> Blueprint:
    """A blueprint with those of the package's modules nested in it: the endpoint of `@bp.get("/keys")` above `index` is
    `portal.keys.index`. Modules without a `bp`, such as forms, bring no routes."""
    door = Blueprint(name, package)
    for item in pkgutil.iter_modules(import_module(package).__path__):
        noun = getattr(import_module(f"{package}.{item.name}"), "bp", None)
        if noun is not None:
            door.register_blueprint(noun)
    return door
