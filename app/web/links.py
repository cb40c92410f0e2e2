"""The beginning of every link that leaves a page: the public address; where none is set, the one that was asked under."""

from __future__ import annotations

from flask import request

from app import current


def origin() -> str:
    """Scheme and host without a slash at the end. What a request says of itself counts only in development: production
    does not start without `server.public_url`."""
    return current.config().origin_asked(request.host_url.rstrip("/"))
