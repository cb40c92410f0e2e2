"""Unpriced usage is open under a model's present price, past under a former one, and gone from neither list by itself."""

from __future__ import annotations

from app.domain import catalog
from app.domain.catalog import Model
from app.extensions import db, transaction
from app.ledger.posting import post
from app.reports import unpriced
from tests.house import (  # noqa: F401
    People,
    app,
    config,
    database_url,
    home,
    inside,
    make_model,
    migrated,
    people,
    quick_hashes,
    wire,
)
from tests.ledger.books import NOON, event


def listed(**asked: str | None) -> list[tuple[str, str]]:
    db.session.rollback()
    return [(one.model, one.quantity) for one in db.session.scalars(unpriced.search(**asked))]


def test_a_line_is_open_until_the_price_changes(people: People) -> None:  # noqa: F811
    model = transaction(make_model, people.admin)
    price = model.price
    assert price is not None
    post([
        event(model="small", price_id=price.id, unpriced={"searches": 1}, at_ms=NOON),
        event(model="small", price_id=None, unpriced={"prompt_tokens": 1}, at_ms=NOON + 1),
        event(model="gone", price_id=None, unpriced={"images": 1}, at_ms=NOON + 2),
    ])  # fmt: skip
    assert listed(state="open") == [("small", "searches")]
    assert listed(state="past") == [("gone", "images"), ("small", "prompt_tokens")]
    assert len(listed()) == 3
    assert listed(search="SMA") == [("small", "prompt_tokens"), ("small", "searches")]
    assert listed(search="%") == []
    found = db.session.get(Model, model.id)
    assert found is not None
    transaction(catalog.update_model, found, by=people.admin, price={"input_per_mtok": "7"})
    assert listed(state="open") == []


def test_a_model_without_a_price_lacks_it_as_long_as_it_has_none(people: People) -> None:  # noqa: F811
    transaction(make_model, people.admin, price={})
    post([event(model="small", price_id=None, unpriced={"prompt_tokens": 1})])
    assert listed(state="open") == [("small", "prompt_tokens")]
