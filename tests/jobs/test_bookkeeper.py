"""The bookkeeper: each event is posted once; what can't be read or posted is kept as a dead letter and costs itself alone."""

from __future__ import annotations

import pytest
from flask import Flask
from sqlalchemy.exc import DataError, OperationalError

from app.jobs.bookkeeper import Bookkeeper
from app.ledger import posting
from app.metering.usage import UsageEvent
from tests.jobs.usage import letters
from tests.ledger import books
from tests.ledger.books import encode, event, some_events


def raw(events: list[UsageEvent]) -> list[tuple[str, bytes]]:
    return [(f"stream {number}-0", encode(event)) for number, event in enumerate(events)]


def test_what_is_delivered_again_is_posted_once(ledger: Flask) -> None:
    bookkeeper = Bookkeeper()
    events = some_events(30)
    bookkeeper.post_raw(raw(events[:20]))
    bookkeeper.post_raw(raw(events))
    bookkeeper.post_spooled("1-1.jsonl", events)
    assert (bookkeeper.posted, books.count_entries()) == (30, 30)
    assert bookkeeper.charged == {scope for event in events for scope in event.scopes}
    books.assert_sums_equal_entries()


def test_a_spool_file_is_posted_a_batch_a_transaction(ledger: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    batches: list[int] = []
    post = posting.post

    def counted(batch: list[UsageEvent]) -> int:
        batches.append(len(batch))
        return post(batch)

    monkeypatch.setattr(posting, "post", counted)
    Bookkeeper(batch=3).post_spooled("1-1.jsonl", some_events(7))
    assert (batches, books.count_entries()) == ([3, 3, 1], 7)


def test_bytes_that_are_no_event_become_a_dead_letter_that_says_where_they_come_from(ledger: Flask) -> None:
    bookkeeper = Bookkeeper()
    bookkeeper.post_raw([("stream 7-0", b"not JSON"), *raw(some_events(5))])
    assert list(bookkeeper.read_spooled("1-1.jsonl", [b"[]"])) == []
    assert {(letter.source, letter.raw) for letter in letters()} == {
        ("stream 7-0", "not JSON"),
        ("spool 1-1.jsonl", "[]"),
    }
    assert (bookkeeper.dead, bookkeeper.posted, books.count_entries()) == (2, 5, 5)


@pytest.mark.both_databases
def test_what_the_database_refuses_in_one_event_costs_that_event_alone(ledger: Flask) -> None:
    bookkeeper = Bookkeeper()
    events = [*some_events(30), event(error_message="nul \x00 byte"), *some_events(30, seed=1)]
    bookkeeper.post_raw(raw(events))
    assert books.count_entries() + len(letters()) == 61  # SQLite takes the byte, PostgreSQL refuses it
    assert books.count_entries() >= 60
    books.assert_sums_equal_entries()


@pytest.mark.parametrize("spooled", [False, True])
def test_a_batch_is_halved_until_the_refused_events_are_alone(
    ledger: Flask, monkeypatch: pytest.MonkeyPatch, spooled: bool
) -> None:
    events = some_events(60)
    refused = {events[0].request_id, events[33].request_id, events[59].request_id}
    post = posting.post

    def choosy(batch: list[UsageEvent]) -> int:
        if refused & {event.request_id for event in batch}:
            raise DataError("INSERT", {}, Exception("out of range\nand more"))
        return post(batch)

    monkeypatch.setattr(posting, "post", choosy)
    bookkeeper = Bookkeeper(batch=40)
    if spooled:
        bookkeeper.post_spooled("1-1.jsonl", events)
    else:
        bookkeeper.post_raw(raw(events))
    assert books.count_entries() == 60 - len(refused) == bookkeeper.posted
    assert [letter.reason for letter in letters()] == ["out of range"] * len(refused)
    books.assert_sums_equal_entries()


def test_trouble_of_the_database_makes_no_dead_letter(ledger: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    bookkeeper = Bookkeeper()

    def away(_: object) -> int:
        raise OperationalError("INSERT", {}, Exception("the server is away"))

    with monkeypatch.context() as broken:
        broken.setattr(posting, "post", away)
        with pytest.raises(OperationalError):
            bookkeeper.post_raw(raw(some_events(5)))
    assert (letters(), bookkeeper.dead, bookkeeper.charged) == ([], 0, set())
