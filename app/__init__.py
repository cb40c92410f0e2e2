"""Portico, a portal and gateway for language models: the factory, which opens only the doors named.

Modules are imported late, so that a process with the `v1` door alone never loads SQL, sessions or forms.
"""

from __future__ import annotations

from collections.abc import Collection
from importlib import import_module
from typing import TYPE_CHECKING

from config import DOORS, Config

if TYPE_CHECKING:
    from flask import Flask


def create_app(config: Config, doors: Collection[str]) -> Flask:
    """Return an application that serves `doors`; without doors it is the cold side alone, for jobs and commands.

    `v1` needs an application of its own, without session, cookie or hooks of the portal. Raises `ValueError` for an
    unknown door and for `v1` beside others.
    """
    unknown = set(doors) - set(DOORS)
    if unknown:
        raise ValueError(f"unknown doors: {', '.join(sorted(unknown))}; known are {', '.join(DOORS)}")
    hot = "v1" in doors
    if hot and len(set(doors)) > 1:
        raise ValueError("the door v1 needs an application of its own")
    from flask import Flask
    from werkzeug.middleware.proxy_fix import ProxyFix

    from app import current
    from app.runtime import health

    app = Flask(__name__, static_folder=None)
    current.remember(app, config)
    proxies = config.server.trusted_proxies
    if proxies:
        app.wsgi_app = ProxyFix(app.wsgi_app, x_for=proxies, x_proto=proxies, x_host=proxies)  # type: ignore[method-assign]
    health.register(app)
    if not hot:
        import_module("app.portal_app").init_app(app, config, pages=bool(doors))
    for door in DOORS:
        if door in doors:
            import_module(f"app.blueprints.{door}").register(app)
    if not hot and doors:
        import_module("app.web.policies").check(app)
    return app
