"""Everyone's API keys, by owner, model, status and what needs attention. Each links to its own page."""

from __future__ import annotations

from flask import Blueprint, Response

from app.blueprints.admin.person import me
from app.domain import catalog, keys
from app.pages import keys as key_pages
from app.web.links import is_served
from app.web.lists import list_page

bp = Blueprint("keys", __name__)


@bp.get("/admin/keys")
def index() -> Response:
    filters = key_pages.filters_from_request()
    return list_page(
        "admin/keys",
        key_pages.filtered(keys.all_(), filters),
        key_pages.COLUMNS,
        file=lambda file_format, rows: key_pages.exported(file_format, me(), rows),
        page=lambda listing: {"rows": key_pages.rows(me(), listing.items)},
        filters=filters,
        models=catalog.names(),
        concerns=key_pages.CONCERNS,
        statuses=keys.STATUSES,
        linked=is_served("portal.keys.detail"),  # this process may not serve that door
    )
