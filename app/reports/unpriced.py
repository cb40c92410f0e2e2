"""Unpriced usage: what models used for which their price has no member, so that it cost nothing.

A line is open as long as the price that it was under is the model's present one.
"""

from __future__ import annotations

from sqlalchemy import Select, func, select

from app.clock import now
from app.domain.catalog import Model
from app.domain.prices import Price
from app.ledger.unpriced import UnpricedUsage

STATES = ("open", "past")


def search(*, state: str | None = None, search: str | None = None) -> Select[UnpricedUsage]:
    """A query of the lines, the last used first: those that are `open`, those of a `past` price, or all; and by a part of
    the model's name."""
    query = select(UnpricedUsage).order_by(
        UnpricedUsage.last_ms.desc(), UnpricedUsage.model, UnpricedUsage.quantity, UnpricedUsage.price_id
    )
    if search:
        query = query.where(UnpricedUsage.model.icontains(search, autoescape=True))
    if state:
        present = (
            select(Price.id)
            .where(Price.model_id == Model.id, Price.from_at <= now())
            .order_by(Price.from_at.desc(), Price.id.desc())
            .limit(1)
            .correlate(Model)
            .scalar_subquery()
        )
        holds = (
            select(Model.id)
            .where(Model.name == UnpricedUsage.model, func.coalesce(present, "") == UnpricedUsage.price_id)
            .exists()
        )
        query = query.where(holds if state == "open" else ~holds)
    return query
