"""What lists are put in order by follows the entries that are posted, and nothing that comes late turns it back."""

from __future__ import annotations

from flask import Flask
from sqlalchemy import select

from app.domain.budgets import Budget
from app.domain.keys import ApiKey
from app.domain.person import Person
from app.extensions import db
from app.ledger import posting
from app.ledger.list_order import BUDGET, COARSE_MS, KEY
from tests.ledger.books import NOON, event


def made() -> None:
    db.session.add(Person(id="ada", username="ada"))
    db.session.flush()
    db.session.add(ApiKey(id="key-1", name="nightly", person_id="ada"))
    db.session.add(Budget(scope_kind="key", scope_id="key-1", limit_nano=100, period="month"))
    db.session.commit()


def last_used_ms() -> int:
    with db.engine.connect() as connection:
        return int(connection.scalar(select(KEY.c.last_used_ms)) or 0)


def spent() -> tuple[int, str]:
    with db.engine.connect() as connection:
        found = connection.execute(select(BUDGET.c.spent_nano, BUDGET.c.spent_period)).one()
    return found[0], found[1]


def test_a_key_is_known_to_be_used_to_the_minute_and_never_less(ledger: Flask) -> None:
    made()
    posting.post([event(at_ms=NOON)])
    assert last_used_ms() == NOON
    posting.post([event(at_ms=NOON + COARSE_MS), event(at_ms=NOON - 1), event(key_id="of nobody"), event(key_id=None)])
    assert last_used_ms() == NOON
    posting.post([event(at_ms=NOON + COARSE_MS + 1), event(kind="late", at_ms=NOON + 10 * COARSE_MS)])
    assert last_used_ms() == NOON + COARSE_MS + 1


def test_a_budget_keeps_what_its_running_counter_has_spent(ledger: Flask) -> None:
    made()
    old, new = ("key", "key-1", "month-1790812800"), ("key", "key-1", "month-1793491200")
    posting.post([event(at_ms=NOON - 1000, cost_nano=5, scopes=(old,)), event(scopes=(("user", "ada", "total"),))])
    assert spent() == (5, old[2])
    posting.post([event(at_ms=NOON, cost_nano=7, scopes=(new,)), event(at_ms=NOON, cost_nano=1, scopes=(new,))])
    posting.post([event(at_ms=NOON - 500, cost_nano=9, scopes=(old,))])
    assert spent() == (8, new[2])
