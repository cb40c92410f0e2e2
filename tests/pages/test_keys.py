"""Keys in a list: narrowed to what wants attention, with what each has used and no other."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import select

from app.clock import now, now_ms, to_ms
from app.domain import budgets, keys
from app.domain.keys import ApiKey
from app.extensions import db, transaction
from app.ledger import posting
from app.pages import keys as listed
from tests.house import People
from tests.ledger.books import event

DAY = timedelta(days=1)


def make(people: People, name: str, **fields: Any) -> ApiKey:
    """A key, and what time would have made of it."""

    def work() -> ApiKey:
        key, _ = keys.create(people.owner, by=people.owner, name=name)
        for field, value in fields.items():
            setattr(key, field, value)
        return key

    return transaction(work)


def concerned(app: Flask, concern: str) -> list[str]:
    with app.test_request_context(f"/keys?concern={concern}"):
        found = listed.filtered(select(ApiKey).order_by(ApiKey.id), listed.filters_from_request())
        return [key.name for key in db.session.scalars(found)]


def test_a_key_is_unused_when_it_was_there_and_nobody_came(app: Flask, people: People) -> None:
    at, long = now(), 91 * DAY
    make(people, "new", last_used_ms=0)
    make(people, "unused", created_at=at - long, last_used_ms=0)
    make(people, "once", created_at=at - long, last_used_ms=to_ms(at - long))
    make(people, "lately", created_at=at - long, last_used_ms=to_ms(at - 89 * DAY))
    make(people, "over", created_at=at - long, last_used_ms=0, expires_at=at - DAY)
    make(people, "revoked", created_at=at - long, last_used_ms=0, revoked_at=at)
    assert concerned(app, "unused") == ["unused", "once"]


def test_a_key_ends_within_a_month_or_is_old(app: Flask, people: People) -> None:
    at = now()
    make(people, "soon", expires_at=at + 29 * DAY)
    make(people, "later", expires_at=at + 31 * DAY)
    make(people, "over", expires_at=at - DAY)
    old = make(people, "old")
    transaction(lambda: setattr(old.secrets[0], "created_at", at - 181 * DAY))
    assert concerned(app, "expiring") == ["soon"]
    assert concerned(app, "old") == ["old"]
    assert concerned(app, "nonsense") == ["soon", "later", "over", "old"], "what is no concern narrows nothing"


def test_a_row_tells_of_its_own_key(people: People) -> None:
    used, unused = make(people, "used"), make(people, "unused")
    transaction(budgets.set_budget, "key", used.id, by=people.admin, limit="5")
    posting.post([event(person_id=people.owner.id, key_id=used.id, at_ms=now_ms())])
    db.session.rollback()
    rows = listed.rows(people.owner, [unused, used])
    assert [row.key.name for row in rows] == ["unused", "used"]
    assert [row.last_used_at is not None for row in rows] == [False, True]
    assert [row.standing.limit_nano for row in rows] == [None, 5 * 10**9]
    told = {name: show(rows[0]) for name, show in listed.EXPORTED.items()}
    assert (told["owner"], told["budget"], told["budget_period"], told["last_used_at"]) == ("owner", None, None, None)
    assert {name: show(rows[1]) for name, show in listed.EXPORTED.items()}["budget"] == "5"
    assert not [text for text in told.values() if isinstance(text, str) and len(text) > 40 and text.startswith("sk-")]


def test_the_use_of_a_key_is_that_of_no_other(people: People) -> None:
    one, other = make(people, "one"), make(people, "other")
    for key, cost in ((one, 3), (one, 4), (other, 100)):
        posting.post([event(person_id=people.owner.id, key_id=key.id, at_ms=now_ms(), cost_nano=cost)])
    posting.post([event(person_id=people.owner.id, key_id=one.id, at_ms=now_ms() - 40 * 86_400_000, cost_nano=1000)])
    db.session.rollback()
    found = listed.usage_of(people.owner, one)
    assert (len(found.days), found.sums.requests, found.sums.cost_nano) == (listed.DAYS, 2, 7)
    assert sum(day.cost_nano for day in found.days) == 7
    assert listed.usage_of(people.stranger, one).sums.requests == 0


@pytest.mark.parametrize("form", ["csv", "json"])
def test_the_list_as_a_file_has_each_key_once(
    app: Flask, people: People, form: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(3):
        make(people, f"key-{number}")
    found = db.session.scalars(select(ApiKey).order_by(ApiKey.id)).all()
    with app.test_request_context():
        text = listed.exported(form, people.owner, iter(found)).get_data(as_text=True)
    assert [text.count(f"key-{number}") for number in range(3)] == [1, 1, 1]
