"""What budgets have spent according to the books: by counter, in any span, and from the middle of a period on."""

from __future__ import annotations

import random

import pytest
from flask import Flask

from app.ledger import budgets, posting
from app.ledger.measures import HOUR_MS
from app.metering.periods import window_of
from tests.ledger.books import NOON, event, some_events


def test_what_a_scope_used_in_any_span_is_exact_to_the_millisecond(ledger: Flask) -> None:
    events = some_events(300, span_ms=5 * HOUR_MS)
    posting.post(events)
    chance = random.Random(5)
    for _ in range(20):
        start = NOON - chance.randrange(6 * HOUR_MS)
        end = start + chance.randrange(4 * HOUR_MS)
        inside = [told for told in events if start <= told.at_ms < end]
        assert budgets.spent_between("organisation", "default", start, end) == sum(e.cost_nano for e in inside)
        assert budgets.spent_between("key", "key-2", start, end) == sum(
            e.cost_nano for e in inside if e.key_id == "key-2"
        )
        assert budgets.spent_between("user", "bob", start, end) == sum(
            e.cost_nano for e in inside if e.person_id == "bob" and e.team_id is None
        )
        assert budgets.spent_between("member", "team-1:eve", start, end) == sum(
            e.cost_nano for e in inside if e.person_id == "eve" and e.team_id == "team-1"
        )
    with pytest.raises(ValueError, match="unknown scope"):
        budgets.spent_between("planet", "earth", 0, 1)


def test_the_books_know_what_counters_were_charged(ledger: Flask) -> None:
    posting.post([event(), event(key_id="key-2", at_ms=NOON - HOUR_MS)])
    assert budgets.spent("user", "ada", window_of("day|UTC", NOON).name) == 250_000
    assert budgets.spent_of([("key", "key-1", "total"), ("key", "nobody", "total")]) == {
        ("key", "key-1", "total"): 125_000
    }
    assert ("key", "key-2", "total") not in budgets.charged_since(NOON)
    assert budgets.charged_since(NOON)["organisation", "default", "total"] == 250_000
