"""Single requests: lists lead from page to page without gap or repeat, and keys tell when they were used."""

from __future__ import annotations

from itertools import pairwise

import pytest
from flask import Flask

from app.extensions import db
from app.ledger import posting
from app.ledger.measures import DAY_MS, HOUR_MS
from app.reports import requests
from app.reports import usage as usage_reports
from app.reports.usage import Filters, ReportError
from tests.ledger.books import ADA, ADMIN, BOB, NOON, event, some_events


def test_requests_are_walked_by_cursor_without_gap_or_repeat(ledger: Flask) -> None:
    posting.post([event(at_ms=NOON - index // 7) for index in range(95)])
    page = requests.search(ADMIN, limit=10)
    assert page.total == 95
    seen = [entry.id for entry in page.entries]
    while page.next is not None:
        posting.post([event(at_ms=NOON + 1)])  # what comes in meanwhile is newer and does not shift the pages
        page = requests.search(ADMIN, limit=10, cursor=page.next)
        seen += [entry.id for entry in page.entries]
    assert len(seen) == len(set(seen)) == 95


def test_pages_may_be_skipped_to(ledger: Flask) -> None:
    posting.post([event(at_ms=NOON - index) for index in range(25)])
    page = requests.search(ADMIN, limit=10, skip=20)
    assert [entry.at_ms for entry in page.entries] == [NOON - index for index in range(20, 25)]
    assert page.next is None


@pytest.mark.parametrize("cursor", ["", "x", "MQ", "LTEuLTE", "é", "OTk5OTk5OTk5OTk5OTk5OTk5OTk5OTk5LjE"])
def test_a_cursor_that_is_none_is_refused(ledger: Flask, cursor: str) -> None:
    with pytest.raises(ReportError) as refused:
        requests.search(ADMIN, cursor=cursor)
    assert refused.value.field == "cursor"


def test_a_list_is_counted_exactly_up_to_ten_thousand(ledger: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requests, "COUNTED_UP_TO", 10)
    posting.post([event() for _ in range(10)])
    assert requests.search(ADMIN).total == 10
    db.session.rollback()  # SQLite reads one moment until the transaction ends
    posting.post([event()])
    assert requests.search(ADMIN).total is None


def test_a_key_tells_when_it_was_last_used(ledger: Flask) -> None:
    posting.post([event(at_ms=NOON - HOUR_MS), event(), event(key_id="key-2", at_ms=NOON - DAY_MS)])
    used = requests.last_use(ADA, ["key-1", "key-2", "key-3"])
    assert used == {"key-1": NOON, "key-2": NOON - DAY_MS}
    shares = usage_reports.by(ADA, "key_id", names=["key-1", "key-2", "key-3"])
    assert [(share.name, share.cost_nano, share.requests) for share in shares] == [
        ("key-1", 250_000, 2),
        ("key-2", 125_000, 1),
    ]


def test_a_credit_is_no_use_of_a_key(ledger: Flask) -> None:
    used = event(at_ms=NOON - HOUR_MS)
    posting.post([used, event(request_id=used.request_id, kind="credit", cost_nano=-5)])
    assert requests.last_use(ADA, ["key-1", "key-2"]) == {"key-1": NOON - HOUR_MS}
    assert [(share.cost_nano, share.requests) for share in usage_reports.by(ADA, "key_id")] == [(124_995, 1)]


def test_each_secret_of_a_key_tells_when_it_was_last_presented(ledger: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    posting.post(
        [
            *(event(secret_id="old", at_ms=NOON - ago) for ago in (2000, 1000)),
            event(secret_id="new"),
            event(),
            event(secret_id="other", key_id="key-2"),
            event(secret_id="foreign", person_id="bob"),
        ]
    )
    secrets = {"old", "new", "foreign"}
    assert requests.use_of_secrets(ADA, "key-1", secrets) == {"old": NOON - 1000, "new": NOON}
    assert requests.use_of_secrets(ADMIN, "key-1", secrets) == {"old": NOON - 1000, "new": NOON, "foreign": NOON}
    assert requests.use_of_secrets(ADMIN, "key-1", {"old", "new"}) == {"old": NOON - 1000, "new": NOON}
    assert requests.use_of_secrets(BOB, "key-2", secrets) == {}
    monkeypatch.setattr(requests, "NEWEST", 2)
    assert requests.use_of_secrets(ADA, "key-1", secrets) == {"new": NOON}


def test_pages_lead_back_to_newer_requests(ledger: Flask) -> None:
    posting.post([event(at_ms=NOON - index // 3) for index in range(25)])
    pages = [requests.search(ADMIN, limit=10)]
    while pages[-1].next is not None:
        pages.append(requests.search(ADMIN, limit=10, cursor=pages[-1].next))
    assert [len(page.entries) for page in pages] == [10, 10, 5]
    assert pages[0].previous is None
    for newer, older in pairwise(pages):
        back = requests.search(ADMIN, limit=10, cursor=older.previous)
        assert [entry.id for entry in back.entries] == [entry.id for entry in newer.entries]
        assert back.next is not None
        assert (back.previous is None) == (newer is pages[0])


def test_every_request_is_walked_in_pieces(ledger: Flask) -> None:
    posting.post([event(at_ms=NOON - index // 3) for index in range(25)])
    pieces = list(requests.all_in_chunks(ADMIN, filters=Filters(from_ms=NOON - 6), piece=5))
    assert [len(piece) for piece in pieces] == [5, 5, 5, 5, 1]
    assert len({entry.id for piece in pieces for entry in piece}) == 21
    assert list(requests.all_in_chunks(BOB, piece=5)) == []


def test_the_newest_requests_are_the_first_of_the_list(ledger: Flask) -> None:
    posting.post(some_events(60, seed=3))
    for reader in (ADMIN, ADA):
        for filters in (Filters(), Filters(model="echo")):
            assert requests.newest(reader, filters=filters, limit=7) == (
                requests.search(reader, filters=filters, limit=7).entries
            )


def test_a_turn_is_all_requests_of_a_person_that_asked_the_same(ledger: Flask) -> None:
    told = [event(turn_id="t", at_ms=NOON + at, cost_nano=at) for at in range(3)]
    posting.post([*told, event(turn_id="t", person_id="bob"), event(turn_id="u"), event()])
    [first] = requests.entries_of(ADMIN, told[0].request_id)
    for reader in (ADA, ADMIN):
        assert [one.request_id for one in requests.turn_of(reader, first)] == [one.request_id for one in told[::-1]]
    assert requests.turn_of(BOB, first) == []
    [alone] = requests.search(ADMIN, filters=Filters(person_id="bob")).entries
    assert [one.request_id for one in requests.turn_of(ADMIN, alone)] == [alone.request_id]
