"""Unpriced usage: usage that no price covers, so it cost nothing in the ledger."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

import msgspec

from app.blueprints.api.contract import Page, Paged, listed, route
from app.extensions import db
from app.ledger.unpriced import UnpricedUsage
from app.reports import unpriced

MOST_LINES = 10_000


class Line(msgspec.Struct, kw_only=True):
    """How much of a quantity a model used without a price. `quantity` is a quantity's name, or the provider's own name for
    what its tools did. `price_id` is the price that has no member for it; null where the model had none."""

    model: str
    quantity: str
    price_id: str | None
    amount: int
    request_count: int
    first_at: datetime
    last_at: datetime


class LinePage(Page, kw_only=True):
    data: list[Line]


class Query(Paged, kw_only=True):
    """`open` is what the present price of a model lacks, `past` what a former one lacked; `search` looks in names of models."""

    state: Literal["open", "past", "all"] = "open"
    search: str | None = None


def show(one: UnpricedUsage) -> Line:
    return Line(
        model=one.model,
        quantity=one.quantity,
        price_id=one.price_id or None,
        amount=one.amount,
        request_count=one.requests,
        first_at=one.first,
        last_at=one.last,
    )


@route("GET", "/api/unpriced-usage", scope="admin", query=Query, answer=LinePage)
def index(query: Query) -> dict[str, Any]:
    """Lists what had no price, the last used first."""
    state = None if query.state == "all" else query.state
    found = db.session.scalars(unpriced.search(state=state, search=query.search).limit(MOST_LINES))
    return listed([show(one) for one in found])
