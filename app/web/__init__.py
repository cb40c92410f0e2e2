"""What every page needs: assets, security headers, htmx, template filters and the rendering of HTML.

`init_web(app)` installs it in an application. Pages then use `app.web.render` and the macros in templates/components.
"""

from __future__ import annotations

import uuid
from typing import Any

from flask import Flask, current_app

from app import clock
from app.metering.quantities import PRICE_MEMBERS
from app.web import formats
from app.web.assets import init_assets
from app.web.attributes import attributes, hyphenated
from app.web.compression import init_compression
from app.web.htmx import htmx
from app.web.markdown import markdown
from app.web.render import current_address
from app.web.security import init_security

__all__ = ["init_web"]


def _currency(code: str | None) -> str:
    return code or str(current_app.config.get("CURRENCY") or "USD")


def init_web(app: Flask) -> None:
    """Registers the static route, the headers, htmx, and the filters and globals that templates use."""
    init_compression(app)  # registered first, so it runs last on each response
    init_assets(app)
    init_security(app)
    htmx.init_app(app)
    env = app.jinja_env
    env.trim_blocks = True
    env.lstrip_blocks = True
    env.filters.update(
        {
            "money": lambda nano, currency=None: formats.money(nano, _currency(currency)),
            "money_exact": lambda nano, currency=None: formats.money_exact(nano, _currency(currency)),
            "per_mtok": lambda price, currency=None: formats.per_mtok(price, _currency(currency)),
            "attrs": attributes,
            "hyphenated": hyphenated,
            "decimal": formats.decimal,
            "count": formats.count,
            "exact": formats.exact,
            "counted": formats.counted,
            "is_counted": formats.is_counted,
            "percent": formats.percent,
            "rfc3339": formats.rfc3339,
            "exact_time": formats.exact_time,
            "day": formats.day,
            "duration": formats.duration,
            "markdown": markdown,
            "size": formats.size,
            "time_of_day": lambda moment: formats.time_of_day(moment, clock.now()),
            "relative_time": lambda moment, now=None: formats.relative_time(moment, now or clock.now()),
        }
    )
    globals_: dict[str, Any] = {
        "current_address": current_address,
        "unique_id": _unique_id,
        "price_members": PRICE_MEMBERS,
    }
    env.globals.update(globals_)


def _unique_id(stem: str = "id") -> str:
    """An element id, for a macro that links two elements when its caller gave no id."""
    return f"{stem}-{uuid.uuid4().hex[:8]}"
