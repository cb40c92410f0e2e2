"""Everybody's API keys: found by owner, model, status and what wants attention; each leads to its own page."""

from __future__ import annotations

from flask import Blueprint, Response

from app.blueprints.admin.person import me
from app.domain import catalog, keys
from app.pages import keys as arranged
from app.web.links import is_served
from app.web.lists import list_page

bp = Blueprint("keys", __name__)


@bp.get("/admin/keys")
def index() -> Response:
    filters = arranged.filters_from_request()
    return list_page(
        "admin/keys",
        arranged.narrowed(keys.all_(), filters),
        arranged.COLUMNS,
        file=lambda form, rows: arranged.exported(form, me(), rows),
        page=lambda found: {"rows": arranged.rows(me(), found.items)},
        filters=filters,
        models=catalog.names(),
        concerns=arranged.CONCERNS,
        statuses=keys.STATUSES,
        linked=is_served("portal.keys.detail"),  # that door may be closed here
    )
