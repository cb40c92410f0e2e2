"""A recount's parts: whom it waits for, what it takes for spent and held, and what it leaves of the counters of before."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from flask import Flask

from app import clock, store
from app.ledger import posting, recount
from app.ledger.recount import is_open, server_run
from app.metering.outbox import REAPER
from app.runtime.ids import new_id
from tests.ledger import books
from tests.ledger.books import now_event

NOBODY = ("key", "nobody", "total")


@pytest.fixture
def ledger(tmp_path: Path, books_sqlite_url: str, redis_url: str) -> Iterator[Flask]:
    with books.opened(books.settings(tmp_path, books_sqlite_url, redis_url)) as app:
        yield app


@pytest.fixture
def wire(redis_url: str) -> redis.Redis:
    return store.connect(redis_url)


def count(wire: redis.Redis, folder: Path, **parts: object) -> bool:
    given = {"drain": lambda: None, "post": posting.post, "lines": lambda path: [], **parts}
    return recount.recount(wire, folder, **given)  # type: ignore[arg-type]


def number(wire: redis.Redis, counter: tuple[str, str, str], field: str) -> int | None:
    found = wire.hget(store.spent(*counter), field)
    return None if found is None else int(found)


def hold(wire: redis.Redis, id: str, amount: int, *counters: tuple[str, str, str]) -> None:
    """A hold as the meter writes it: each scope has three keys, the second of which is its counter."""
    keys = "\n".join(f"limits\n{store.spent(*counter)}\nslots" for counter in counters)
    wire.hset(store.hold(id), mapping={"amount": amount, "keys": keys})
    wire.zadd(store.LEASES, {id: clock.now_ms() + 60_000})


def test_counters_are_what_the_ledger_knows_and_others_go(ledger: Flask, wire: redis.Redis, tmp_path: Path) -> None:
    told = now_event(cost_nano=7)
    posting.post([told])
    wire.hset(store.spent(*NOBODY), mapping={"spent": 5})
    wire.hset(store.spent(*told.scopes[0]), mapping={"spent": 999, "held": 999})
    assert count(wire, tmp_path)
    assert is_open(wire)
    assert [number(wire, scope, "spent") for scope in told.scopes] == [7, 7, 7]
    assert [number(wire, scope, "held") for scope in told.scopes] == [0, 0, 0]
    assert not wire.exists(store.spent(*NOBODY))


def test_a_counter_of_a_period_ends_and_one_of_all_time_does_not(
    ledger: Flask, wire: redis.Redis, tmp_path: Path
) -> None:
    told = now_event()
    posting.post([told])
    count(wire, tmp_path)
    lives = {period.partition("-")[0]: wire.pttl(store.spent(kind, id, period)) for kind, id, period in told.scopes}
    assert lives["total"] == -1
    assert lives["day"] > recount.LONGEST_MS


def test_a_period_that_is_long_over_is_not_counted(ledger: Flask, wire: redis.Redis, tmp_path: Path) -> None:
    over = ("key", "key-1", f"month-{clock.now_s() - recount.LONGEST_MS // 1000 - 86_400}")
    posting.post([now_event(scopes=(over, ("key", "key-1", "total")))])
    count(wire, tmp_path)
    assert not wire.exists(store.spent(*over))
    assert wire.exists(store.spent("key", "key-1", "total"))


def test_live_holds_are_held_and_those_that_were_settled_are_not(
    ledger: Flask, wire: redis.Redis, tmp_path: Path
) -> None:
    """A copy of Redis that is older than the books holds money for calls that were booked long ago."""
    settled = now_event(cost_nano=3, at_ms=clock.now_ms() - 10 * 86_400_000)
    posting.post([settled])
    counter = ("key", "key-1", "total")
    hold(wire, settled.request_id, 100, counter)
    hold(wire, "alive", 20, counter, ("organisation", "default", "total"))
    wire.zadd(store.LEASES, {"without a hold": 1})
    count(wire, tmp_path)
    assert (number(wire, counter, "spent"), number(wire, counter, "held")) == (3, 20)
    assert number(wire, ("organisation", "default", "total"), "held") == 20
    assert wire.zrange(store.LEASES, 0, -1) == ["alive"]
    assert wire.get(store.tombstone(settled.request_id)) == recount.COUNTED


def test_one_counts_at_a_time(ledger: Flask, wire: redis.Redis, tmp_path: Path) -> None:
    within: list[bool] = []
    assert count(wire, tmp_path, drain=lambda: within.append(count(wire, tmp_path)))
    assert within == [False, False]
    assert count(wire, tmp_path), "who is done lets others"


def test_a_redis_that_is_lost_meanwhile_stays_closed(ledger: Flask, wire: redis.Redis, tmp_path: Path) -> None:
    assert not count(wire, tmp_path, drain=wire.flushall)
    assert not is_open(wire)


def test_a_failure_leaves_the_meter_closed_and_the_recount_to_be_repeated(
    ledger: Flask, wire: redis.Redis, tmp_path: Path
) -> None:
    wire.hset(store.METER, mapping={"epoch": "1", "run_id": server_run(wire)})

    def fail() -> None:
        raise LookupError

    with pytest.raises(LookupError):
        count(wire, tmp_path, drain=fail)
    assert not is_open(wire)
    assert count(wire, tmp_path)


@pytest.mark.parametrize(("name", "waited_for"), [("1-1", True), (f"{REAPER}1-1", False)])
def test_writers_of_calls_are_waited_for_and_the_reaper_is_not(tmp_path: Path, name: str, waited_for: bool) -> None:
    path = tmp_path / f"{name}.jsonl"
    path.touch()
    assert recount._writers(tmp_path) == set(), "nobody writes it"
    with path.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert recount._writers(tmp_path) == ({path.name} if waited_for else set())


def test_what_is_in_spools_is_posted_once_and_what_may_still_settle_finds_a_tombstone(
    ledger: Flask, wire: redis.Redis, tmp_path: Path
) -> None:
    recent = now_event(cost_nano=5)
    old = now_event(cost_nano=7, at_ms=clock.now_ms() - 3_600_000)
    known = now_event(cost_nano=11, at_ms=clock.now_ms() - 3_600_000)
    posting.post([known])
    (tmp_path / "1-1.jsonl").touch()
    count(wire, tmp_path, lines=lambda path: [recent, old, known])
    assert number(wire, ("organisation", "default", "total"), "spent") == 23
    marks = [wire.get(store.tombstone(one.request_id)) for one in (recent, old)]
    assert marks == [recount.COUNTED, recount.COUNTED]


def test_a_call_that_the_reaper_settled_stays_so(ledger: Flask, wire: redis.Redis, tmp_path: Path) -> None:
    """Its worker may wake up, and is then charged only for what came later."""
    reaped = now_event(
        request_id=new_id(),
        outcome="error",
        error_code="worker_lost",
        cost_nano=9,
        prompt_tokens=2,
        completion_tokens=1,
    )
    posting.post([reaped])
    count(wire, tmp_path)
    assert wire.get(store.tombstone(reaped.request_id)) == "reaped:9:2:1"


def test_a_recount_waits_for_hosts_that_have_something_to_tell(
    ledger: Flask, wire: redis.Redis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another host posts what only its spool has, while this one waits; the counters then have it."""
    told = now_event(cost_nano=9)

    def other_host_takes_part(_: float) -> None:
        recount.take_part(wire, tmp_path / "other", "other", posting.post, lambda path: [])
        posting.post([told])

    monkeypatch.setattr(recount.time, "sleep", other_host_takes_part)
    assert count(wire, tmp_path, others={"other"})
    assert [number(wire, scope, "spent") for scope in told.scopes] == [9, 9, 9]


def test_a_host_that_is_silent_is_waited_for_a_lease_only(
    ledger: Flask, wire: redis.Redis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recount, "PATIENCE_S", 0.1)
    assert count(wire, tmp_path, others={"gone"})
    assert is_open(wire)


def test_a_host_tells_its_part_once_and_only_while_somebody_counts(
    ledger: Flask, wire: redis.Redis, tmp_path: Path
) -> None:
    posted: list[object] = []
    recount.take_part(wire, tmp_path, "other", posted.extend, lambda path: [now_event()])
    wire.hset(store.METER, "counting", "c")
    (tmp_path / "1-1.jsonl").touch()
    for _ in range(2):
        recount.take_part(wire, tmp_path, "other", posted.extend, lambda path: [now_event()])
    assert len(posted) == 1
    assert wire.smembers(store.hosts_counted("c")) == {"other"}
