"""Links to pages of doors that this process may not serve, and the origin of absolute links.

The origin is the configured public address. If none is set, it is the address that the browser requested.
"""

from __future__ import annotations

from typing import Any

from flask import current_app, request, url_for

from app import current


def origin() -> str:
    """Scheme and host, without a trailing slash. The request's own Host counts only in development: production does not
    start without `server.public_url`."""
    return current.config().origin_asked(request.host_url.rstrip("/"))


def is_served(endpoint: str) -> bool:
    """Whether this process serves the door that has this page."""
    return endpoint in current_app.view_functions


def url_if_served(endpoint: str, **values: Any) -> str | None:
    """The path of a page, or None if this process does not serve its door."""
    return url_for(endpoint, **values) if is_served(endpoint) else None
