"""The recount: a meter that is closed is opened again with all that the stream, the spools and the ledger know."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from flask import Flask

from app import store
from app.jobs import recount
from app.jobs.bookkeeper import Bookkeeper
from app.jobs.hosts import Hosts
from app.jobs.stream import Stream
from app.ledger import recount as ledger_recount
from app.ledger.recount import is_open
from tests.jobs.usage import letters, line, send, spent, spool
from tests.ledger import books
from tests.ledger.books import event


@pytest.fixture
def stream(client: redis.Redis, bookkeeper: Bookkeeper) -> Stream:
    return Stream(client, "ours", bookkeeper)


@pytest.fixture
def published(wire: redis.Redis) -> None:
    wire.set(store.DIRECTORY_VERSION, "1")


def test_an_open_meter_is_left_alone(
    wire: redis.Redis, open_meter: None, published: None, client: redis.Redis, stream: Stream, bookkeeper: Bookkeeper,
    tmp_path: Path,
) -> None:  # fmt: skip
    recount.open_meter(client, tmp_path, stream, bookkeeper, Hosts(client, tmp_path))
    assert wire.hget(store.METER, "epoch") == "1"


def test_a_meter_without_limits_stays_closed(
    client: redis.Redis, stream: Stream, bookkeeper: Bookkeeper, spool_dir: Path
) -> None:
    recount.open_meter(client, spool_dir, stream, bookkeeper, Hosts(client, spool_dir))
    assert not is_open(client)


def test_a_lost_meter_is_opened_with_the_stream_and_the_spools_in_its_counters(
    ledger: Flask, wire: redis.Redis, published: None, client: redis.Redis, stream: Stream, bookkeeper: Bookkeeper,
    spool_dir: Path,
) -> None:  # fmt: skip
    send(wire, [event(cost_nano=3)])
    dead = spool(spool_dir, line(event(cost_nano=5)), b"{broken}\n", line(event(cost_nano=100))[:-9])
    recount.open_meter(client, spool_dir, stream, bookkeeper, Hosts(client, spool_dir))
    assert is_open(client)
    assert (spent(wire), books.count_entries(), wire.xlen(store.USAGE)) == (8, 2, 0)
    assert [(letter.source, letter.raw) for letter in letters()] == [(f"spool {dead.name}", "{broken}")]
    assert dead.exists(), "the janitor deletes it"


@pytest.fixture
def writer(spool_dir: Path) -> Iterator[Path]:
    """The spool file of a process that lives, with one whole line and the beginning of another."""
    path = spool(spool_dir, line(event(cost_nano=5)), line(event(cost_nano=100))[:40])
    with path.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield path


def test_the_lines_of_a_living_process_count_and_the_one_it_is_writing_waits(
    ledger: Flask, wire: redis.Redis, published: None, client: redis.Redis, stream: Stream, bookkeeper: Bookkeeper,
    spool_dir: Path, writer: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(ledger_recount, "PATIENCE_S", 0)  # it puts nothing back
    recount.open_meter(client, spool_dir, stream, bookkeeper, Hosts(client, spool_dir))
    assert is_open(client)
    assert (spent(wire), letters()) == (5, [])


def test_a_spool_file_that_is_deleted_meanwhile_tells_nothing(tmp_path: Path) -> None:
    assert list(recount._events(tmp_path / "gone.jsonl", Bookkeeper())) == []


def test_a_host_takes_part_in_the_recount_of_another(
    ledger: Flask, wire: redis.Redis, published: None, client: redis.Redis, stream: Stream, bookkeeper: Bookkeeper,
    spool_dir: Path,
) -> None:  # fmt: skip
    """What its spool alone has is in the ledger before the other one counts."""
    spool(spool_dir, line(event(cost_nano=5)))
    wire.hset(store.METER, "counting", "c1")
    wire.set(f"{store.TAG}:recount", "the other host")
    hosts = Hosts(client, spool_dir)
    recount.open_meter(client, spool_dir, stream, bookkeeper, hosts)
    assert wire.smembers(store.hosts_counted("c1")) == {hosts.own}
    assert not is_open(wire)
    assert books.count_entries() == 1
