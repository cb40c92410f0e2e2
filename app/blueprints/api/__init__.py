"""The management API: what programs can do. One module per noun; `contract.route` declares every route."""

from __future__ import annotations

import pkgutil
from importlib import import_module

from flask import Flask

from app.web import errors, reference

# The paths of this door. Errors below these are JSON, also for paths without a route.
PREFIXES = (
    "/api/",
    "/usage/",
    "/users/",
    "/admin/users",
    "/admin/token",
    "/token",
    "/refresh-token",
    "/change-password",
)


def register(app: Flask) -> None:
    """Serves the management API from `app`. Importing a module of this package registers its routes."""
    for item in pkgutil.iter_modules(__path__):
        import_module(f"{__name__}.{item.name}")
    from app.blueprints.api.contract import bp, refuse_http
    from app.blueprints.api.openapi import document
    from app.blueprints.api.scim import bp as scim

    app.register_blueprint(bp)
    app.register_blueprint(scim)
    errors.register_json_errors(app, PREFIXES, refuse_http)
    reference.register_document(app, document)
