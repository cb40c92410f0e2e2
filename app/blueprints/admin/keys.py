"""Everybody's API keys: found by owner, model, status and what wants attention; each leads to its own page."""

from __future__ import annotations

from flask import Blueprint, Response

from app.blueprints.admin.person import me
from app.domain import catalog, keys
from app.pages import keys as arranged
from app.web import exports
from app.web.links import is_served
from app.web.lists import in_order, page_of, sorting
from app.web.render import render

bp = Blueprint("keys", __name__)


@bp.get("/admin/keys")
def index() -> Response:
    wanted = arranged.wish()
    found = in_order(arranged.narrowed(keys.everybodys(), wanted), arranged.COLUMNS)
    if form := exports.wanted():
        return arranged.exported(form, me(), found)
    page = page_of(found)
    return render(
        "admin/keys/index.html",
        "admin/keys/_list.html",
        found=page,
        rows=arranged.rows(me(), page.items),
        wish=wanted,
        models=catalog.names(),
        concerns=arranged.CONCERNS,
        statuses=keys.STATUSES,
        sort=sorting(arranged.COLUMNS),
        linked=is_served("portal.keys.detail"),  # that door may be closed here
    )
