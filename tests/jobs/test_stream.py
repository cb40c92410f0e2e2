"""The stream: an entry leaves it once it is in the books, whoever dies between the two."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import redis
from flask import Flask
from sqlalchemy.exc import OperationalError, ProgrammingError

from app import store
from app.extensions import db
from app.jobs.bookkeeper import BATCH, Bookkeeper
from app.jobs.stream import Stream
from app.ledger import entries, posting
from app.runtime.ids import new_id
from tests.jobs.usage import drain_all, letters, send
from tests.ledger import books
from tests.ledger.books import encode, event, some_events


@pytest.fixture
def make_stream(client: redis.Redis) -> Callable[..., Stream]:
    def make(*, batch: int = BATCH, claim_after_ms: int = 50, bookkeeper: Bookkeeper | None = None) -> Stream:
        made = Stream(client, new_id(), bookkeeper or Bookkeeper(batch), batch=batch, claim_after_ms=claim_after_ms)
        made.prepare()
        return made

    return make


@pytest.fixture
def stream(make_stream: Callable[..., Stream]) -> Stream:
    return make_stream()


@pytest.mark.both_databases
@pytest.mark.slow
def test_events_are_posted_and_the_stream_forgets_them(
    ledger: Flask, wire: redis.Redis, make_stream: Callable[..., Stream]
) -> None:
    send(wire, some_events(1200))
    stream = make_stream(batch=500)
    assert drain_all(stream) == 1200
    assert wire.xlen(store.USAGE) == 0
    assert wire.xpending(store.USAGE, store.USAGE_GROUP)["pending"] == 0
    assert books.count_entries() == 1200
    books.assert_sums_equal_entries()


def test_events_from_before_the_group_are_posted(
    ledger: Flask, wire: redis.Redis, make_stream: Callable[..., Stream]
) -> None:
    stream = make_stream()
    wire.delete(store.USAGE)  # as when Redis has lost everything
    send(wire, some_events(10))
    for _ in range(3):
        stream.drain(block_ms=10)
    assert books.count_entries() == 10


@pytest.mark.both_databases
@pytest.mark.parametrize(
    "poison",
    [
        b"not JSON",
        b"\xff\xfe",
        b"[]",
        b"{}",
        b'{"request_id": 5}',
        encode(event(cost_nano=2**62)),
        encode(event(prompt_tokens=-(2**60))),
        encode(event(model="x")).replace(b'"x"', b'"\\ud800"'),
        b"[" * 100_000,
    ],
    ids=lambda raw: raw[:12].decode("latin-1"),
)
def test_poison_becomes_a_dead_letter_and_the_rest_goes_on(
    ledger: Flask, wire: redis.Redis, stream: Stream, poison: bytes
) -> None:
    send(wire, some_events(20))
    wire.xadd(store.USAGE, {"e": poison})
    send(wire, some_events(20, seed=1))
    assert drain_all(stream) == 41
    assert books.count_entries() == 40
    assert len(letters()) == 1
    assert wire.xlen(store.USAGE) == 0
    books.assert_sums_equal_entries()


@pytest.mark.both_databases
def test_an_entry_that_is_no_event_becomes_a_dead_letter(ledger: Flask, wire: redis.Redis, stream: Stream) -> None:
    wire.xadd(store.USAGE, {"other": "field"})
    assert drain_all(stream) == 1
    (letter,) = letters()
    assert "other" in letter.raw


@pytest.mark.both_databases
def test_while_the_database_is_away_events_stay_in_the_stream(
    ledger: Flask, wire: redis.Redis, make_stream: Callable[..., Stream], monkeypatch: pytest.MonkeyPatch
) -> None:
    send(wire, some_events(50))
    stream = make_stream()
    with monkeypatch.context() as broken:

        def away(_: object) -> int:
            raise OperationalError("INSERT", {}, Exception("the server is away"))

        broken.setattr(posting, "post", away)
        for _ in range(3):
            with pytest.raises(OperationalError):
                stream.drain(block_ms=10)
    assert wire.xlen(store.USAGE) == 50
    assert letters() == []
    assert drain_all(stream) == 50
    assert books.count_entries() == 50


@pytest.mark.both_databases
def test_a_missing_table_makes_no_dead_letters(
    ledger: Flask, wire: redis.Redis, make_stream: Callable[..., Stream]
) -> None:
    send(wire, some_events(5))
    with db.engine.begin() as connection:
        entries.ENTRY.drop(connection)
    with pytest.raises((OperationalError, ProgrammingError), match="usage_entry"):
        make_stream().drain(block_ms=10)
    assert letters() == []
    assert wire.xlen(store.USAGE) == 5


@pytest.mark.slow
def test_entries_of_a_dead_drainer_are_claimed(
    ledger: Flask, wire: redis.Redis, make_stream: Callable[..., Stream]
) -> None:
    dead = make_stream(batch=500)
    send(wire, some_events(700))
    assert len(dead._take(10)) == 500
    time.sleep(0.1)
    heir = make_stream(batch=300)
    drain_all(heir)
    assert books.count_entries() == 700
    assert wire.xlen(store.USAGE) == 0
    books.assert_sums_equal_entries()


@pytest.mark.both_databases
@pytest.mark.slow
def test_two_drainers_at_once_post_each_event_once(
    ledger: Flask, wire: redis.Redis, make_stream: Callable[..., Stream]
) -> None:
    send(wire, some_events(2000))
    bookkeepers = [Bookkeeper() for _ in range(3)]
    streams = [make_stream(batch=100, claim_after_ms=1, bookkeeper=bookkeeper) for bookkeeper in bookkeepers]

    def work(stream: Stream) -> None:
        with ledger.app_context():
            while wire.xlen(store.USAGE):
                stream.drain(block_ms=10)

    threads = [threading.Thread(target=work, args=(stream,)) for stream in streams]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert books.count_entries() == 2000
    assert sum(bookkeeper.posted for bookkeeper in bookkeepers) == 2000
    books.assert_sums_equal_entries()


KILLED = """
import os, signal, sys
from pathlib import Path
from flask import Flask
from redis import Redis
from app.extensions import init_database
from app.jobs.bookkeeper import Bookkeeper
from app.jobs.stream import Stream
from tests.ledger.books import settings

class Killed(Stream):
    def _acknowledge(self, ids):
        print("committed", flush=True)
        os.kill(os.getpid(), signal.SIGKILL)

folder, database, redis = sys.argv[1:]
config = settings(Path(folder), database or None, redis)
app = Flask("books")
app.config["PORTICO"] = config
init_database(app, config)
with app.app_context():
    stream = Killed(Redis.from_url(redis, protocol=2, legacy_responses=False), "killed", Bookkeeper())
    stream.prepare()
    stream.drain()
"""


@pytest.mark.both_databases
@pytest.mark.slow
def test_a_drainer_killed_between_commit_and_acknowledge_posts_nothing_twice(
    ledger: Flask, wire: redis.Redis, redis_url: str, make_stream: Callable[..., Stream], tmp_path: Path
) -> None:
    send(wire, some_events(300))
    database = ledger.config["PORTICO"].database.url or ""
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, str(tmp_path), database, redis_url],
        capture_output=True, text=True, timeout=60, check=False, cwd=Path(__file__).resolve().parents[2],
    )  # fmt: skip
    assert (killed.returncode, killed.stdout) == (-signal.SIGKILL, "committed\n"), killed.stderr
    assert books.count_entries() == 300
    assert wire.xlen(store.USAGE) == 300
    time.sleep(0.1)
    bookkeeper = Bookkeeper()
    assert drain_all(make_stream(bookkeeper=bookkeeper)) == 300
    assert bookkeeper.posted == 0
    assert books.count_entries() == 300
    assert wire.xlen(store.USAGE) == 0
    books.assert_sums_equal_entries()


def test_all_is_drained_what_a_dead_drainer_had_taken_included(
    ledger: Flask, wire: redis.Redis, make_stream: Callable[..., Stream]
) -> None:
    send(wire, some_events(25))
    assert len(make_stream(batch=10)._take(10)) == 10
    heir = make_stream(batch=10, claim_after_ms=0)
    heir.drain()  # it has just looked for those of the dead: the next look is a second away
    heir.drain_all()
    assert books.count_entries() == 25
    assert wire.xlen(store.USAGE) == 0


def test_the_ledger_has_what_a_mark_stands_for_once_the_stream_is_past_it(
    ledger: Flask, wire: redis.Redis, stream: Stream
) -> None:
    assert stream.is_drained_to(stream.newest()), "nothing waits"
    send(wire, some_events(5))
    mark = stream.newest()
    assert not stream.is_drained_to(mark)
    drain_all(stream)
    assert stream.is_drained_to(mark)
    send(wire, some_events(5, seed=1))
    assert stream.is_drained_to(mark) and not stream.is_drained_to(stream.newest())


def test_marks_are_compared_by_their_numbers(wire: redis.Redis, stream: Stream) -> None:
    wire.xadd(store.USAGE, {"e": "x"}, id="999-10")
    assert stream.is_drained_to(b"999-9")
    assert not stream.is_drained_to(b"999-10")
    assert not stream.is_drained_to(b"1000-0")


def test_the_backlog_is_what_waits_and_since_when(wire: redis.Redis, stream: Stream) -> None:
    assert (stream.length(), stream.oldest_ms()) == (0, None)
    wire.xadd(store.USAGE, {"e": "x"}, id="5000-3")
    wire.xadd(store.USAGE, {"e": "x"}, id="6000-0")
    assert (stream.length(), stream.oldest_ms()) == (2, 5000)


def test_a_drainer_that_leaves_takes_its_name_away_unless_entries_are_pending_under_it(
    wire: redis.Redis, make_stream: Callable[..., Stream]
) -> None:
    send(wire, some_events(5))
    busy, idle = make_stream(), make_stream()
    busy._take(10)
    idle._take(0)
    assert len(wire.xinfo_consumers(store.USAGE, store.USAGE_GROUP)) == 2
    busy.leave()
    idle.leave()
    (left,) = wire.xinfo_consumers(store.USAGE, store.USAGE_GROUP)
    assert (left["name"], left["pending"]) == (busy._name, 5)
