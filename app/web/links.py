"""Links: to pages of doors that this process may not open, and the beginning of those that leave a page.

That beginning is the public address; where none is set, it is the one that was asked under.
"""

from __future__ import annotations

from typing import Any

from flask import current_app, request, url_for

from app import current


def origin() -> str:
    """Scheme and host without a slash at the end. What a request says of itself counts only in development: production
    does not start without `server.public_url`."""
    return current.config().origin_asked(request.host_url.rstrip("/"))


def is_served(endpoint: str) -> bool:
    """Whether this process opens the door that has this page."""
    return endpoint in current_app.view_functions


def url_if_served(endpoint: str, **values: Any) -> str | None:
    """The path of a page, if this process opens its door."""
    return url_for(endpoint, **values) if is_served(endpoint) else None
