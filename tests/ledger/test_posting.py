"""Posting: each event once, and sums that always say what the entries say."""

from __future__ import annotations

import random
import threading
from pathlib import Path

import pytest
from flask import Flask
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import select
from sqlalchemy.exc import OperationalError

from app.extensions import db
from app.ledger import budgets, entries, posting
from app.ledger.entries import TAGGED, UsageEntry
from app.ledger.measures import HOUR_MS
from tests.examples import examples
from tests.ledger import books
from tests.ledger.books import event, some_events


def test_an_entry_keeps_everything_its_event_told(ledger: Flask) -> None:
    told = event(
        error_code="upstream_error", error_message="x" * 5000, stream=True, team_id="team-1", session_id="s", agent="a",
        subagent_id="b", turn_id="t", tags=("one", "two"), unpriced={"searches": 3},
    )  # fmt: skip
    assert posting.post([told]) == 1
    entry = db.session.scalars(select(UsageEntry)).one()
    for field in told.__struct_fields__:
        if field not in ("attempts", "scopes", "tags"):
            assert getattr(entry, field) == getattr(told, field), field
    assert entry.tags == ["one", "two"]
    assert entry.attempts == [{"deployment_id": "deployment-1", "provider_id": "provider-1", "duration_ms": 40}]
    assert [tuple(scope) for scope in entry.scopes] == list(told.scopes)


def test_what_is_delivered_again_changes_nothing(ledger: Flask) -> None:
    batch = some_events(700)
    assert posting.post(batch) == 700
    assert posting.post(batch) == 0
    assert posting.post(batch[100:] + some_events(10, seed=1)) == 10
    assert books.count_entries() == 710
    books.assert_sums_equal_entries()


def test_tags_are_found_by_their_entries_once_however_often_they_are_delivered(ledger: Flask) -> None:
    told = [event(tags=("one", "two")), event(tags=("two", "two")), event()]
    assert (posting.post(told), posting.post(told)) == (3, 0)
    found = select(TAGGED.c.tag, UsageEntry.request_id).join(UsageEntry, UsageEntry.id == TAGGED.c.entry_id)
    expected = {("one", told[0].request_id), ("two", told[0].request_id), ("two", told[1].request_id)}
    assert {tuple(row) for row in db.session.execute(found)} == expected


def test_one_batch_may_hold_an_event_twice(ledger: Flask) -> None:
    told = event()
    assert posting.post([told, told, event(request_id=told.request_id, attempt=2), told]) == 2
    books.assert_sums_equal_entries()


def test_a_credit_is_an_entry_but_no_request(ledger: Flask) -> None:
    told = event()
    credit = event(request_id=told.request_id, kind="credit", cost_nano=-125_000, prompt_tokens=0, duration_ms=0)
    assert posting.post([told, credit]) == 2
    assert budgets.spent("organisation", "default", "total") == 0
    books.assert_sums_equal_entries()


def test_a_transaction_that_fails_posts_nothing(ledger: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OperationalError("INSERT", {}, Exception("gone"))

    with monkeypatch.context() as broken:
        broken.setattr(budgets, "advance", fail)
        with pytest.raises(OperationalError):
            posting.post(some_events(20))
    assert books.count_entries() == 0
    books.assert_sums_equal_entries()


def test_many_posters_at_once_post_each_event_once(ledger: Flask) -> None:
    events = some_events(1500, span_ms=3 * HOUR_MS)
    new: list[int] = []
    lock = threading.Lock()

    def work(seed: int) -> None:
        mine = list(events)
        random.Random(seed).shuffle(mine)
        with ledger.app_context():
            for start in range(0, len(mine), 200):
                added = posting.post(mine[start : start + 200])
                with lock:
                    new.append(added)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(new) == 32
    assert sum(new) == 1500
    books.assert_sums_equal_entries()


@settings(max_examples=examples(40), deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    count=st.integers(1, 30),
    seed=st.integers(0, 10**6),
    deliveries=st.lists(st.lists(st.integers(0, 29), max_size=15), max_size=12),
)
def test_for_any_order_and_any_redelivery_sums_equal_entries(
    books_sqlite_url: str, count: int, seed: int, deliveries: list[list[int]]
) -> None:
    with books.opened(books.settings(Path(), books_sqlite_url)):
        events = some_events(count, seed)
        given_out: set[int] = set()
        for batch in deliveries:
            chosen = [index for index in batch if index < count]
            posting.post([events[index] for index in chosen])
            given_out.update(chosen)
            books.assert_sums_equal_entries()
        assert books.count_entries() == len(given_out)


def test_a_dead_letter_is_kept_once(ledger: Flask) -> None:
    for _ in range(2):
        posting.bury("stream 1-1", b"\xff\x00 not an event", "it is\x00 no JSON")
    letter = db.session.scalars(select(entries.DeadLetter)).one()
    assert letter.raw == "\\xff\\x00 not an event"
    assert letter.source == "stream 1-1"
