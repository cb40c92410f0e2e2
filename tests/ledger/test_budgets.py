"""What budgets have spent according to the books: by counter, in any span, and from the middle of a period on."""

from __future__ import annotations

import random

import pytest
from flask import Flask
from hypothesis import given
from hypothesis import strategies as st

from app.extensions import transaction
from app.ledger import budgets, posting
from app.ledger.measures import HOUR_MS
from app.metering.periods import window_of
from app.metering.usage import UsageEvent
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


def credit(nano: int, *scopes: tuple[str, str, str], at_ms: int = NOON) -> UsageEvent:
    return event(kind="credit", person_id="", key_id=None, cost_nano=0, moved_nano=nano, scopes=scopes, at_ms=at_ms)


@given(st.sampled_from(["usage", "late", "repair", "credit"]), st.integers(0, 10**12), st.integers(-(10**12), 10**12))
def test_only_a_credit_charges_what_it_moved(kind: str, cost: int, moved: int) -> None:
    """A repair corrects a counter: the books were right already."""
    charged = budgets.charged_nano(event(kind=kind, cost_nano=cost, moved_nano=moved))
    assert charged == cost + (moved if kind == "credit" else 0)


def test_a_counter_is_charged_since_the_instant_of_its_last_request(ledger: Flask) -> None:
    posting.post([event(at_ms=NOON + HOUR_MS), event(at_ms=NOON)])  # the later one does not move it back
    day = ("user", "ada", window_of("day|UTC", NOON).name)
    assert day in budgets.charged_since(NOON + HOUR_MS)
    assert day not in budgets.charged_since(NOON + HOUR_MS + 1)
    assert len(budgets.charged_since(NOON, limit=1)) == 1


def test_entries_are_counted_with_what_they_charged(ledger: Flask) -> None:
    posting.post([event(cost_nano=5), event(cost_nano=0), event(cost_nano=7, key_id="key-2")])
    everybody, key = ("organisation", "default", "total"), ("key", "key-2", "total")
    assert budgets.spent_and_entries([everybody, key, ("key", "none", "total")]) == {everybody: (12, 3), key: (7, 1)}


def test_spans_may_overlap_be_empty_or_be_shorter_than_an_hour(ledger: Flask) -> None:
    posting.post([event(at_ms=NOON, cost_nano=1), event(at_ms=NOON + 10, cost_nano=2)])
    spans = [(NOON, NOON + 10), (NOON, NOON + 11), (NOON + 5, NOON + 5), (NOON - HOUR_MS, NOON + 2 * HOUR_MS)]
    assert budgets.spent_in("organisation", "default", *spans) == [1, 3, 0, 3]
    assert budgets.spent_in("organisation", "default") == []


def test_a_team_pays_for_its_keys_and_its_members_alone_do_not(ledger: Flask) -> None:
    posting.post(
        [
            event(team_id="team-1", cost_nano=3),
            event(cost_nano=5),
            event(person_id="bob", team_id="team-1", cost_nano=7),
        ]
    )
    whole = (0, NOON + HOUR_MS)
    found = {scope: budgets.spent_between(*scope, *whole) for scope in (
        ("user", "ada"), ("team", "team-1"), ("member", "team-1:ada"), ("member", "team-1:bob"), ("organisation", "default"),
    )}  # fmt: skip
    assert list(found.values()) == [5, 10, 3, 7, 15]


def test_a_counter_that_starts_in_mid_period_knows_what_was_used_before(ledger: Flask) -> None:
    window = window_of("month|UTC", NOON)
    scope = ("key", "key-1")
    posting.post(
        [
            event(cost_nano=10),
            event(cost_nano=4, at_ms=window.start_ms),
            event(cost_nano=100, at_ms=window.start_ms - 1),
        ]
    )
    assert transaction(budgets.open_counter, *scope, window) == 14
    assert budgets.spent(*scope, window.name) == 14
    assert transaction(budgets.open_counter, *scope, window) == 0, "it lacks nothing any more"


def test_what_a_credit_gave_back_is_not_taken_again(ledger: Flask) -> None:
    window = window_of("month|UTC", NOON)
    counter = ("key", "key-1", window.name)
    posting.post([event(cost_nano=10, scopes=(counter,)), credit(-6, counter), credit(-3, ("key", "key-1", "total"))])
    assert budgets.spent(*counter) == 4
    assert transaction(budgets.open_counter, "key", "key-1", window) == 0
    assert budgets.spent(*counter) == 4
