"""The beginning of every link that leaves a page: the public address; where none is set, the one that was asked under."""

from __future__ import annotations

import re

from flask import request

from app import current

_ORIGIN = re.compile(r"https?://[\w.:\[\]-]{1,255}", re.ASCII)


def origin() -> str:
    """Scheme and host without a slash at the end. What a request says of itself counts only in development: production
    does not start without `server.public_url`."""
    config = current.config()
    asked = request.host_url.rstrip("/")
    return config.base_url if config.server.public_url or not _ORIGIN.fullmatch(asked) else asked
