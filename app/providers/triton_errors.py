"""What Triton says of a failure, the same over both transports."""

from __future__ import annotations

import re

from app.providers.errors import UpstreamError
from app.providers.http_errors import safe_to_show

_REQUEST_ID = re.compile(r"^\[request id: [^\]]*\]\s*")
_UNKNOWN = re.compile(r"unknown model|model .{0,200}\bis not found|has no available versions", re.IGNORECASE)
_TOO_LONG = re.compile(
    r"\b(?:exceeds?|longer than|greater than)\b.{0,80}\b(?:max\w*|context|limit)"
    r"|\bmax\w*\b.{0,60}\b(?:length|tokens)\b.{0,60}\bexceed",
    re.IGNORECASE,
)


def failure(reason: str, *secrets: str, status: int | None = None) -> UpstreamError:
    """A failure that Triton or a model tells. Only a prompt that is too long is the client's: a tensor that is wrong is its
    deployment's, and a model may fail here and work elsewhere."""
    reason = _REQUEST_ID.sub("", reason)
    shown = safe_to_show(reason, *secrets) or "The model failed."
    if _UNKNOWN.search(reason):
        return UpstreamError(shown, status=404, code="model_not_found")
    if _TOO_LONG.search(reason):
        return UpstreamError(shown, status=400, refused=True, code="context_length_exceeded")
    return UpstreamError(shown, status=502 if status in (None, 400) else status)
