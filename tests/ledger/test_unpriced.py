"""What had no price is summed once, by model, quantity and price, and no figure of an upstream breaks a sum."""

from __future__ import annotations

from flask import Flask
from sqlalchemy import select

from app.extensions import db
from app.ledger import posting
from app.ledger.unpriced import MOST, UnpricedUsage
from tests.ledger.books import NOON, event


def kept() -> dict[tuple[str, str, str], tuple[int, int, int, int]]:
    found = db.session.scalars(select(UnpricedUsage).execution_options(populate_existing=True))
    return {
        (one.model, one.quantity, one.price_id): (one.requests, one.amount, one.first_ms, one.last_ms) for one in found
    }


def test_what_had_no_price_is_summed_once_however_often_it_is_delivered(ledger: Flask) -> None:
    told = [
        event(unpriced={"searches": 2, "images": 1}, price_id="p", at_ms=NOON),
        event(unpriced={"searches": 3}, price_id="p", at_ms=NOON - 10),
        event(unpriced={"searches": 5}, at_ms=NOON + 10), event(),
    ]  # fmt: skip
    posting.post(told[:1])
    posting.post(told)
    posting.post([event(kind="late", unpriced={"images": 1}, price_id="p", at_ms=NOON)])
    assert kept() == {
        ("echo", "searches", "p"): (2, 5, NOON - 10, NOON),
        ("echo", "images", "p"): (1, 2, NOON, NOON),
        ("echo", "searches", ""): (1, 5, NOON + 10, NOON + 10),
    }


def test_a_count_that_can_not_be_is_bounded(ledger: Flask) -> None:
    posting.post([event(unpriced={"searches": 2**62}) for _ in range(3)] + [event(unpriced={"searches": -1})])
    assert kept()["echo", "searches", ""][:2] == (4, 3 * MOST)
