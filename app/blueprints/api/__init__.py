"""The management API: what programs may do, one module a noun, every route declared by `contract.route`."""

from __future__ import annotations

import pkgutil
from importlib import import_module

from flask import Flask

from app.web import errors, reference

# Where this door answers: errors below these are JSON, also for paths that no route has.
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
    """Every module of this package brings its routes by being imported."""
    for item in pkgutil.iter_modules(__path__):
        import_module(f"{__name__}.{item.name}")
    from app.blueprints.api.contract import bp, refuse_http
    from app.blueprints.api.openapi import document

    app.register_blueprint(bp)
    errors.register_json_errors(app, PREFIXES, refuse_http)
    reference.register_document(app, document)
