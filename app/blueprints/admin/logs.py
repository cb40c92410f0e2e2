"""The log of every process: found by level, component, day and words, and followed while it grows."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

from flask import Blueprint, Response, abort, request

from app import current
from app.domain import log_entries
from app.domain.log_entries import COMPONENTS, LEVELS
from app.web import cursors
from app.web.lists import SIZES, filters_from_request
from app.web.render import current_address, render

bp = Blueprint("logs", __name__)


@bp.get("/admin/logs")
def index() -> Response:
    filters = filters_from_request(longest=200, level=LEVELS, component=COMPONENTS, **dict.fromkeys(("from", "to")))
    chosen = {name: filters[name].strip() for name in ("level", "component", "from", "to")}
    first, last = _day(chosen["from"]), _day(chosen["to"])
    query = log_entries.search(
        level=chosen["level"],
        component=chosen["component"],
        since=first,
        until=last + timedelta(days=1) if last else None,
        search=filters.search,
    )
    size = request.args.get("size", type=int)
    size = size if size in SIZES else SIZES[0]
    cursor = request.args.get("cursor") or None
    try:
        listing = cursors.page_of(query, 1, size, cursor)
    except cursors.InvalidCursor:
        abort(404, "This page of the list no longer exists.")
    labels = {"level": "Level", "component": "Component", "from": "From", "to": "To"}
    return render(
        "admin/logs/index.html",
        "admin/logs/_list.html",
        listing=listing,
        size=size,
        sizes=SIZES,
        search=filters.search,
        chosen=chosen,
        components=[(name, name.capitalize()) for name in COMPONENTS],
        follows=request.args.get("follow") == "y" and cursor is None,
        kept="database" in current.config().log.sinks,
        days=current.config().log.retention_days,
        chips=[
            {"label": labels.get(name, "Search"), "value": value, "href": current_address(**{name: None}, cursor=None)}
            for name, value in {**chosen, "q": filters.search}.items()
            if value
        ],
    )


def _day(text: str) -> datetime | None:
    """The beginning of a UTC day, None if the text is none that a list can have."""
    try:
        day = date.fromisoformat(text)
    except ValueError:
        return None
    return datetime(day.year, day.month, day.day, tzinfo=UTC) if 1971 <= day.year <= 9000 else None
