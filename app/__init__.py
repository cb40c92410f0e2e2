"""Portico, a portal and gateway for language models: the factory that opens the doors asked for, and no others.

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
    """An application that serves `doors`. Without any it is the cold side alone, for jobs and commands.

    `v1` stands by itself: its application has no session, no cookie and no hook of the portal's.
    """
    unknown = set(doors) - set(DOORS)
    if unknown:
        raise ValueError(f"unknown doors: {', '.join(sorted(unknown))}; known are {', '.join(DOORS)}")
    hot = "v1" in doors
    if hot and len(set(doors)) > 1:
        raise ValueError("the door v1 needs an application of its own")
    from flask import Flask
    from werkzeug.middleware.proxy_fix import ProxyFix

    from app import current, health

    app = Flask(__name__, static_folder=None)
    current.remember(app, config)
    proxies = config.server.trusted_proxies
    if proxies:
        app.wsgi_app = ProxyFix(app.wsgi_app, x_for=proxies, x_proto=proxies, x_host=proxies)  # type: ignore[method-assign]
    health.open_door(app)
    if not hot:
        import_module("app.cold").furnish(app, config, pages=bool(doors))
    for door in DOORS:
        if door in doors:
            import_module(f"app.blueprints.{door}").open_door(app)
    return app
