"""The janitor: what a dead process had spooled is settled and posted once, and its file is deleted."""

from __future__ import annotations

import fcntl
from pathlib import Path
from unittest.mock import Mock

import pytest
import redis
from flask import Flask
from redis import ResponseError
from redis.exceptions import OutOfMemoryError
from sqlalchemy.exc import OperationalError

from app import store
from app.jobs import janitor as janitor_module
from app.jobs.bookkeeper import Bookkeeper
from app.jobs.janitor import Janitor
from app.jobs.stream import Stream
from app.jobs.trouble import Trouble
from app.ledger import posting
from app.metering.usage import UsageEvent
from tests.jobs.usage import drain_all, letters, line, spent, spool, the_meter
from tests.ledger import books
from tests.ledger.books import event

pytestmark = pytest.mark.usefixtures("open_meter")


@pytest.fixture
def janitor(client: redis.Redis, stream: Stream, bookkeeper: Bookkeeper, spool_dir: Path) -> Janitor:
    return Janitor(spool_dir, the_meter(client), stream, bookkeeper, Trouble())


def test_a_closed_spool_file_is_settled_posted_and_deleted(
    ledger: Flask, wire: redis.Redis, stream: Stream, janitor: Janitor, spool_dir: Path
) -> None:
    lost = [event(cost_nano=5), event(cost_nano=7)]
    path = spool(spool_dir, *map(line, lost))
    assert janitor.clean() == 1
    assert not path.exists()
    assert spent(wire) == 12
    drain_all(stream)  # the settle put them into the stream as well
    assert books.count_entries() == 2
    books.assert_sums_equal_entries()


def test_a_spool_file_in_use_is_left_alone(
    ledger: Flask, wire: redis.Redis, stream: Stream, janitor: Janitor, spool_dir: Path
) -> None:
    path = spool(spool_dir, line(event()))
    with path.open("rb") as writer:
        fcntl.flock(writer, fcntl.LOCK_EX)
        assert janitor.clean() == 0
        assert path.exists()
    assert janitor.clean() == 1


@pytest.mark.both_databases
def test_what_was_settled_long_ago_is_not_charged_again(
    ledger: Flask, wire: redis.Redis, stream: Stream, janitor: Janitor, spool_dir: Path
) -> None:
    told = event(cost_nano=5)
    the_meter(wire).settle_event(told)
    wire.delete(store.tombstone(told.request_id))  # tombstones do not last
    path = spool(spool_dir, line(told))
    assert janitor.clean() == 0, "its event waits in the stream still"
    assert path.exists()
    drain_all(stream)
    assert janitor.clean() == 1
    assert spent(wire) == 5
    assert books.count_entries() == 1


@pytest.mark.both_databases
def test_of_two_tellings_the_settled_one_is_booked(
    ledger: Flask, wire: redis.Redis, stream: Stream, janitor: Janitor, spool_dir: Path
) -> None:
    told = event(cost_nano=5)
    by_reaper = event(request_id=told.request_id, attempt=0, cost_nano=3)
    path = spool(spool_dir, line(told))
    settle_event = janitor._meter.settle_event

    def late(event: UsageEvent) -> bool:  # the reaper comes between the look into the books and the settle
        settle_event(by_reaper)
        return settle_event(told)

    janitor._meter.settle_event = late  # type: ignore[method-assign]
    assert janitor.clean() == 0
    drain_all(stream)
    assert janitor.clean() == 1
    assert not path.exists()
    assert spent(wire) == 3
    assert books.count_entries() == 1
    books.assert_sums_equal_entries()


def test_a_settled_event_that_never_came_is_booked_from_the_spool_after_a_while(
    ledger: Flask,
    wire: redis.Redis,
    stream: Stream,
    janitor: Janitor,
    spool_dir: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told = event()
    wire.set(store.tombstone(told.request_id), 1)
    spool(spool_dir, line(told))
    assert janitor.clean() == 0
    monkeypatch.setattr(janitor_module, "DOUBTFUL_S", 0)
    assert janitor.clean() == 1
    assert books.count_entries() == 1


def test_an_event_that_the_meter_refuses_holds_up_no_other_and_is_in_the_books_in_the_end(
    ledger: Flask,
    wire: redis.Redis,
    stream: Stream,
    janitor: Janitor,
    spool_dir: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    refused, beside, behind = event(cost_nano=5), event(cost_nano=7), event(cost_nano=11)
    wire.rpush(store.tombstone(refused.request_id), "no tombstone")
    first = spool(spool_dir, line(refused), line(beside))
    second = spool(spool_dir, line(behind), name="2-2")
    janitor.clean()
    drain_all(stream)
    janitor.clean()
    drain_all(stream)
    assert first.exists() and not second.exists()
    assert books.count_entries() == 2 and spent(wire) == 18
    monkeypatch.setattr(janitor_module, "DOUBTFUL_S", 0)
    assert janitor.clean() == 1
    assert books.count_entries() == 3
    books.assert_sums_equal_entries()


def test_a_spool_file_waits_for_a_redis_that_takes_no_writes(
    ledger: Flask,
    wire: redis.Redis,
    client: redis.Redis,
    stream: Stream,
    bookkeeper: Bookkeeper,
    spool_dir: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(janitor_module, "DOUBTFUL_S", 0)
    path = spool(spool_dir, line(event(cost_nano=5)))
    meter = the_meter(client)
    janitor = Janitor(spool_dir, meter, stream, bookkeeper, Trouble())
    for error in (OutOfMemoryError("command not allowed"), ResponseError("MISCONF Redis cannot write to its disk")):
        with monkeypatch.context() as broken:
            broken.setattr(meter, "settle_event", Mock(side_effect=error))
            with pytest.raises(ResponseError):
                janitor.clean()
        assert path.exists() and books.count_entries() == 0
    assert janitor.clean() == 1
    assert books.count_entries() == 1 and spent(wire) == 5


@pytest.mark.both_databases
def test_a_torn_last_line_is_told_and_a_broken_line_becomes_a_dead_letter(
    ledger: Flask, wire: redis.Redis, stream: Stream, janitor: Janitor, spool_dir: Path
) -> None:
    whole, unended = event(), event()
    spool(spool_dir, line(whole), b"{broken}\n", line(event())[:40])
    spool(spool_dir, line(unended)[:-1], name="2-2")
    assert janitor.clean() == 1
    drain_all(stream)  # the first file's event is in the stream now, which the second one's turn waits for
    assert janitor.clean() == 1
    assert janitor.torn == 1
    assert [letter.raw for letter in letters()] == ["{broken}"]
    assert books.count_entries() == 2


def test_an_empty_spool_file_is_deleted(ledger: Flask, stream: Stream, janitor: Janitor, spool_dir: Path) -> None:
    path = spool(spool_dir)
    assert janitor.clean() == 1
    assert not path.exists()


@pytest.mark.both_databases
def test_a_spool_file_survives_a_database_that_is_away(
    ledger: Flask, stream: Stream, janitor: Janitor, spool_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = spool(spool_dir, line(event()))

    def away(*_: object) -> set[str]:
        raise OperationalError("SELECT", {}, Exception("the server is away"))

    with monkeypatch.context() as broken:
        broken.setattr(posting, "known_requests", away)
        with pytest.raises(OperationalError):
            janitor.clean()
    assert path.exists()
    assert janitor.clean() == 1
    assert books.count_entries() == 1
