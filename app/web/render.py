"""One way to answer with HTML: the fragment to htmx, the page to everyone else, and a toast with either.

Routes stay free of the difference, and a form works the same with scripts and without.
"""

from __future__ import annotations

import json
from typing import Any, Literal, cast
from urllib.parse import urlencode

from flask import Response, flash, get_flashed_messages, make_response, redirect, render_template, request

from app.web.htmx import htmx

Level = Literal["success", "info", "warning", "danger"]


def render(page: str, fragment: str | None = None, status: int = 200, **values: Any) -> Response:
    """Renders `fragment` for an htmx request that asked for a part, otherwise `page`, with the same values.

    Toasts flashed before a redirect that htmx followed by itself ride along with the fragment.
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
    """Adds a toast to an answer to htmx; several add up. Errors (`danger`) stay on the page until closed."""
    events: dict[str, Any] = json.loads(response.headers.get("HX-Trigger") or "{}")
    events.setdefault("toast", {"messages": []})["messages"].append({"level": level, "message": message})
    # json.dumps writes ASCII, the only thing safe in a header.
    response.headers["HX-Trigger"] = json.dumps(events)
    return response


def toast_next(level: Level, message: str) -> None:
    """Keeps a toast for the next page: for a plain POST that answers 303."""
    flash(message, level)


def see_other(location: str) -> Response:
    """After a POST that changed something: 303 for a plain form; htmx is told to load the page as a whole."""
    if htmx.is_partial:
        response = make_response("", 204)
        response.headers["HX-Redirect"] = location
        return response
    return make_response(redirect(location, 303))


def current_address(**changes: Any) -> str:
    """The address of this list with some parameters changed (None takes one out): sorting, paging, filter chips.

    Any change but one of the page itself goes back to the first page.
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
