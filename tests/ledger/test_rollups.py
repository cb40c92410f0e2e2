"""Rollups: derived ones equal the entries, in time proportional to what is new."""

from __future__ import annotations

import random
import threading
from datetime import datetime

import pytest
from flask import Flask
from sqlalchemy import update

from app import clock
from app.ledger import measures, posting, rollups
from app.ledger.measures import HOUR_MS
from app.ledger.rollups import HOURLY, ROLLUP
from app.ledger.summaries import CUT
from tests.ledger import books
from tests.ledger.books import NOON, event, some_events


def test_days_weeks_and_months_equal_the_entries(ledger: Flask) -> None:
    posting.post(some_events(400))
    assert rollups.derive(batch=37) > 0
    books.assert_sums_equal_entries(derived=True)


def test_what_is_used_around_a_turn_of_the_calendar_is_summed_where_it_belongs(ledger: Flask, turn: datetime) -> None:
    at_ms = clock.now_ms()
    events = some_events(60, span_ms=2 * 60_000, until_ms=at_ms + 60_000) + some_events(100, until_ms=at_ms, seed=1)
    posting.post(events[::2])
    rollups.derive()
    posting.post(events[1::2])
    rollups.derive()
    books.assert_sums_equal_entries(derived=True)


def test_deriving_again_changes_nothing(ledger: Flask) -> None:
    posting.post(some_events(100))
    rollups.derive()
    assert rollups.derive() == 0
    books.assert_sums_equal_entries(derived=True)


def test_only_hours_that_changed_are_derived(ledger: Flask) -> None:
    posting.post(some_events(200))
    rollups.derive()
    posting.post([event(at_ms=NOON - 20 * 24 * HOUR_MS), event()])
    assert rollups.derive() == 2
    books.assert_sums_equal_entries(derived=True)


@pytest.mark.slow
def test_posting_and_deriving_at_once_end_equal(ledger: Flask) -> None:
    events = some_events(1200, span_ms=50 * HOUR_MS)
    done = threading.Event()

    def derive_for_ever() -> None:
        with ledger.app_context():
            while not done.is_set():
                rollups.derive(batch=50)

    def post(share: int) -> None:
        with ledger.app_context():
            mine = events[share::2]
            random.Random(share).shuffle(mine)
            for start in range(0, len(mine), 60):
                posting.post(mine[start : start + 60])

    derivers = [threading.Thread(target=derive_for_ever) for _ in range(2)]
    posters = [threading.Thread(target=post, args=(share,)) for share in range(2)]
    for thread in derivers + posters:
        thread.start()
    for thread in posters:
        thread.join()
    done.set()
    for thread in derivers:
        thread.join()
    rollups.derive()
    books.assert_sums_equal_entries(derived=True)


@pytest.mark.slow
def test_a_sound_ledger_checks_without_differences(ledger: Flask) -> None:
    assert rollups.check() == []
    posting.post(some_events(300))
    assert rollups.check(seed=1) == []
    rollups.derive()
    posting.post(some_events(10, seed=9))
    assert rollups.check(sample=1000, seed=2) == []


def test_a_wrong_sum_is_found_and_told(ledger: Flask) -> None:
    posting.post(some_events(20, span_ms=HOUR_MS))
    rollups.derive()
    with measures.writing() as connection:
        connection.execute(update(HOURLY).values(cost_nano=HOURLY.c.cost_nano + 1))
        connection.execute(update(ROLLUP).where(ROLLUP.c.kind == "month").values(requests=7777))
    found = {difference.kind for difference in rollups.check()}
    assert {"hour", "day", "month"} <= found


def test_a_wrong_sum_of_a_cut_is_found_and_told(ledger: Flask) -> None:
    posting.post(some_events(20, span_ms=HOUR_MS))
    rollups.derive()
    with measures.writing() as connection:
        connection.execute(update(CUT).where(CUT.c.cut == "whole", CUT.c.kind == "hour").values(requests=7777))
        connection.execute(update(CUT).where(CUT.c.cut == "payer", CUT.c.kind == "week").values(cost_nano=1))
    assert {difference.kind for difference in rollups.check()} == {"whole hour", "payer week"}


def test_an_hour_without_its_rollup_is_found(ledger: Flask) -> None:
    posting.post([event()])
    with measures.writing() as connection:
        connection.execute(HOURLY.delete())
    difference, *_ = rollups.check()
    assert difference.kind == "hour"
    assert difference.kept is None
    assert difference.counted is not None
