"""Reads the request headers of htmx 4, on top of flask-htmx, which reads those of htmx 2.

Version 4 sends the source instead of the trigger, writes elements as `tag#id`, and says whether it expects a whole page
or a fragment.
"""

from __future__ import annotations

import flask_htmx
from flask import request


def _id_of(element: str | None) -> str | None:
    """`tbody#rows` → `rows`; None when the element has no id."""
    if not element or "#" not in element:
        return None
    return element.split("#", 1)[1] or None


class HTMX(flask_htmx.HTMX):
    @property
    def source(self) -> str | None:
        """The element that sent the request, as `tag#id`."""
        return request.headers.get("HX-Source")

    @property
    def source_id(self) -> str | None:
        return _id_of(self.source)

    @property
    def target_id(self) -> str | None:
        return _id_of(request.headers.get("HX-Target"))

    @property
    def is_partial(self) -> bool:
        """Whether htmx expects a fragment. Plain, boosted and history requests expect the whole page."""
        return bool(self) and not self.history_restore_request and request.headers.get("HX-Request-Type") != "full"


htmx = HTMX()
