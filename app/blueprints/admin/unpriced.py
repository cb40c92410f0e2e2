"""Unpriced usage: what providers did for which no price has a member, with the way to the price."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flask import Blueprint, Response
from sqlalchemy import select

from app.domain.catalog import Model
from app.domain.search import one_of
from app.extensions import db
from app.ledger.unpriced import UnpricedUsage
from app.metering.quantities import QUANTITIES
from app.reports import unpriced
from app.web.lists import Listing, filters_from_request, list_page

EVERYTHING = "all"
TITLES = {quantity.name: (quantity.title, quantity.unit) for quantity in QUANTITIES}

bp = Blueprint("unpriced", __name__)


@bp.get("/admin/unpriced")
def index() -> Response:
    filters = filters_from_request(state=(*unpriced.STATES, EVERYTHING), defaults={"state": "open"})
    state = filters["state"]
    return list_page(
        "admin/unpriced",
        unpriced.search(state=None if state == EVERYTHING else state, search=filters.search),
        page=_about,
        search=filters.search,
        chosen=state,
        titles=TITLES,
    )


def _about(listing: Listing[UnpricedUsage]) -> Mapping[str, Any]:
    """The models of the page's lines, by name."""
    names = {one.model for one in listing.items}
    found = db.session.execute(select(Model.name, Model.id).where(one_of(Model.name, names))).all() if names else ()
    return {"models": dict(found)}
