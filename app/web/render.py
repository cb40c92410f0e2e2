"""The one way to answer with HTML: a fragment for htmx, the page for everyone else, and a toast with either.

Routes need not tell the two apart, and a form works with and without scripts.
"""

from __future__ import annotations

import json
from typing import Any, Literal, cast
from urllib.parse import urlencode

from flask import Response, flash, get_flashed_messages, make_response, redirect, render_template, request

from app.web.htmx import htmx

Level = Literal["success", "info", "warning", "danger"]


def render(page: str, fragment: str | None = None, status: int = 200, **values: Any) -> Response:
    """Renders `fragment` if htmx requested one, otherwise `page`, with the same values.

    A redirect that htmx followed by itself may have flashed toasts; the fragment carries them.
    """
    partial = fragment is not None and htmx.is_partial
    response = make_response(render_template(fragment if partial and fragment else page, **values), status)
    if partial:
        flashed = cast("list[tuple[str, str]]", get_flashed_messages(with_categories=True))
        for level, message in flashed:
            toast(response, _level(level), message)
    response.vary.update(("HX-Request", "HX-Request-Type"))
    return response


def toast(response: Response, level: Level, message: str) -> Response:
    """Adds a toast to an htmx response and returns the response. It can hold several. `danger` stays on the page until
    closed."""
    events: dict[str, Any] = json.loads(response.headers.get("HX-Trigger") or "{}")
    events.setdefault("toast", {"messages": []})["messages"].append({"level": level, "message": message})
    # json.dumps writes ASCII, the only thing safe in a header.
    response.headers["HX-Trigger"] = json.dumps(events)
    return response


def toast_next(level: Level, message: str) -> None:
    """Keeps a toast for the next page, for a plain POST that answers 303."""
    flash(message, level)


def see_other(location: str) -> Response:
    """Redirects after a POST that changed something: 303 for a plain form, a full page load for htmx."""
    if htmx.is_partial:
        response = make_response("", 204)
        response.headers["HX-Redirect"] = location
        return response
    return make_response(redirect(location, 303))


def current_address(**changes: Any) -> str:
    """Returns the URL of this list with some parameters changed (None removes one): for sorting, paging and filter
    chips.

    Unless `page` itself changes, the list starts at its first page again.
    """
    pairs = [(key, value) for key, value in request.args.items(multi=True) if key not in changes]
    if "page" not in changes:
        pairs = [(key, value) for key, value in pairs if key != "page"]
    for key, value in changes.items():
        if value is None or value == "":
            continue
        pairs += [(key, str(one)) for one in value] if isinstance(value, list | tuple) else [(key, str(value))]
    query = urlencode(pairs)
    return f"{request.path}?{query}" if query else request.path


def _level(category: str) -> Level:
    match category:
        case "success" | "info" | "warning" | "danger":
            return category
        case "error":
            return "danger"
        case _:
            return "info"
