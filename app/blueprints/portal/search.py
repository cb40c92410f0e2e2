"""Search over everything that the person can see: a page of results, and suggestions below the masthead's field."""

from __future__ import annotations

from flask import Blueprint, Response

from app.blueprints.portal.person import me
from app.pages import search
from app.pages.search import Hit, Kind
from app.web.lists import ListFilter, filters_from_request
from app.web.render import render

SUGGESTIONS = 12

bp = Blueprint("search", __name__)


@bp.get("/search")
def index() -> Response:
    kinds = search.kinds_for(me())
    filters = filters_from_request(longest=search.LONGEST, kind=kinds)
    hits = _find(filters, limit=search.MOST)
    return render(
        "portal/search/index.html",
        "portal/search/_results.html",
        text=filters.search,
        groups=search.by_kind(hits),
        count=len(hits),
        most=search.MOST,
        shortest=search.SHORTEST,
        kind=filters["kind"],
        kinds=kinds,
    )


@bp.get("/search/suggestions")
def suggestions() -> Response:
    filters = filters_from_request(longest=search.LONGEST)
    hits = _find(filters, limit=SUGGESTIONS)
    return render(
        "portal/search/_suggestions.html",
        text=filters.search,
        groups=search.by_kind(hits),
        count=len(hits),
        most=SUGGESTIONS,
        shortest=search.SHORTEST,
        kinds=search.TITLES,
    )


def _find(filters: ListFilter, *, limit: int) -> list[Hit]:
    if len(filters.search) < search.SHORTEST:
        return []
    kind: Kind | None = next((kind for kind in search.KINDS if kind == filters.values.get("kind")), None)
    return search.find(me(), filters.search, everything=me().sees_everything, kind=kind, limit=limit)
