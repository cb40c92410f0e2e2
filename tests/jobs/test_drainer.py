"""The drainer: every event reaches the books once, whatever dies, and nothing bad holds up the rest."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import msgspec
import pytest
import redis
from flask import Flask
from redis import ResponseError
from redis.exceptions import OutOfMemoryError
from sqlalchemy import select
from sqlalchemy.exc import OperationalError

from app import clock, store
from app.extensions import db
from app.jobs import drainer as drainer_module
from app.jobs.drainer import Drainer
from app.ledger import entries, posting
from app.ledger.entries import DeadLetter, UsageEntry
from app.ledger.recount import server_run
from app.metering.reservations import Charge, Meter, ScopeRef
from app.metering.usage import UsageEvent
from app.runtime import heartbeats
from app.workflows import reconcile
from tests.jobs.at_work import at_work
from tests.ledger import books
from tests.ledger.books import encode, event, some_events
from tests.services.waiting import PATIENCE_S, until

pytestmark = pytest.mark.slow


def send(wire: redis.Redis, events: list[UsageEvent]) -> None:
    with wire.pipeline(transaction=False) as pipe:
        for told in events:
            pipe.xadd(store.USAGE, {"e": encode(told)})
        pipe.execute()


@pytest.fixture
def make_drainer(redis_url: str, tmp_path: Path) -> Callable[..., Drainer]:
    def make(**options: Any) -> Drainer:
        made = Drainer(redis_url, tmp_path / "spool", **{"claim_after_ms": 50, **options})
        made.prepare()
        return made

    (tmp_path / "spool").mkdir()
    return make


def drain_all(drainer: Drainer) -> int:
    total = 0
    while taken := drainer.drain(block_ms=10):
        total += taken
    return total


@pytest.fixture(autouse=True)
def open_meter(wire: redis.Redis) -> None:
    wire.hset(store.METER, mapping={"epoch": "1", "run_id": server_run(wire)})


def the_meter(wire: redis.Redis) -> Meter:
    return Meter(wire.execute_command, lambda: server_run(wire))


def letters() -> list[DeadLetter]:
    db.session.rollback()
    return list(db.session.scalars(select(DeadLetter)))


@pytest.mark.both_databases
def test_events_are_posted_and_the_stream_forgets_them(
    ledger: Flask, wire: redis.Redis, make_drainer: Callable[..., Drainer]
) -> None:
    send(wire, some_events(1200))
    drainer = make_drainer(batch=500)
    assert drain_all(drainer) == 1200
    assert wire.xlen(store.USAGE) == 0
    assert wire.xpending(store.USAGE, store.USAGE_GROUP)["pending"] == 0
    assert books.count_entries() == 1200
    books.assert_sums_equal_entries()


def test_events_from_before_the_group_are_posted(
    ledger: Flask, wire: redis.Redis, make_drainer: Callable[..., Drainer]
) -> None:
    drainer = make_drainer()
    wire.delete(store.USAGE)  # as when Redis has lost everything
    send(wire, some_events(10))
    for _ in range(3):
        drainer.drain(block_ms=10)
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
    ledger: Flask, wire: redis.Redis, make_drainer: Callable[..., Drainer], poison: bytes
) -> None:
    send(wire, some_events(20))
    wire.xadd(store.USAGE, {"e": poison})
    send(wire, some_events(20, seed=1))
    drainer = make_drainer()
    assert drain_all(drainer) == 41
    assert books.count_entries() == 40
    assert len(letters()) == 1
    assert wire.xlen(store.USAGE) == 0
    books.assert_sums_equal_entries()


@pytest.mark.both_databases
def test_an_entry_that_is_no_event_becomes_a_dead_letter(
    ledger: Flask, wire: redis.Redis, make_drainer: Callable[..., Drainer]
) -> None:
    wire.xadd(store.USAGE, {"other": "field"})
    assert drain_all(make_drainer()) == 1
    (letter,) = letters()
    assert "other" in letter.raw


@pytest.mark.both_databases
def test_what_the_database_refuses_in_one_event_costs_that_event_alone(
    ledger: Flask, wire: redis.Redis, make_drainer: Callable[..., Drainer]
) -> None:
    send(wire, [*some_events(30), event(error_message="nul \x00 byte"), *some_events(30, seed=1)])
    assert drain_all(make_drainer()) == 61
    assert books.count_entries() + len(letters()) == 61  # SQLite takes the byte, PostgreSQL refuses it
    assert books.count_entries() >= 60
    books.assert_sums_equal_entries()


@pytest.mark.both_databases
def test_while_the_database_is_away_events_stay_in_the_stream(
    ledger: Flask, wire: redis.Redis, make_drainer: Callable[..., Drainer], monkeypatch: pytest.MonkeyPatch
) -> None:
    send(wire, some_events(50))
    drainer = make_drainer()
    with monkeypatch.context() as broken:

        def away(_: object) -> int:
            raise OperationalError("INSERT", {}, Exception("the server is away"))

        broken.setattr(posting, "post", away)
        for _ in range(3):
            with pytest.raises(OperationalError):
                drainer.drain(block_ms=10)
    assert wire.xlen(store.USAGE) == 50
    assert letters() == []
    assert drain_all(drainer) == 50
    assert books.count_entries() == 50


@pytest.mark.both_databases
def test_a_missing_table_makes_no_dead_letters(
    ledger: Flask, wire: redis.Redis, make_drainer: Callable[..., Drainer]
) -> None:
    send(wire, some_events(5))
    with db.engine.begin() as connection:
        entries.ENTRY.drop(connection)
    with pytest.raises(Exception, match="usage_entry"):
        make_drainer().drain(block_ms=10)
    assert letters() == []
    assert wire.xlen(store.USAGE) == 5


def test_entries_of_a_dead_drainer_are_claimed(
    ledger: Flask, wire: redis.Redis, make_drainer: Callable[..., Drainer]
) -> None:
    dead = make_drainer(batch=500)
    send(wire, some_events(700))
    assert len(dead._take(10)) == 500
    time.sleep(0.1)
    heir = make_drainer(batch=300)
    drain_all(heir)
    assert books.count_entries() == 700
    assert wire.xlen(store.USAGE) == 0
    books.assert_sums_equal_entries()


@pytest.mark.both_databases
def test_two_drainers_at_once_post_each_event_once(
    ledger: Flask, wire: redis.Redis, make_drainer: Callable[..., Drainer]
) -> None:
    send(wire, some_events(2000))
    drainers = [make_drainer(batch=100, claim_after_ms=1) for _ in range(3)]

    def work(drainer: Drainer) -> None:
        with ledger.app_context():
            while wire.xlen(store.USAGE):
                drainer.drain(block_ms=10)

    threads = [threading.Thread(target=work, args=(drainer,)) for drainer in drainers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert books.count_entries() == 2000
    assert sum(drainer.posted for drainer in drainers) == 2000
    books.assert_sums_equal_entries()


KILLED = """
import os, signal, sys
from pathlib import Path
from flask import Flask
from app.extensions import init_database
from app.jobs.drainer import Drainer
from tests.ledger.books import settings

class Killed(Drainer):
    def _acknowledge(self, ids):
        print("committed", flush=True)
        os.kill(os.getpid(), signal.SIGKILL)

folder, database, redis = sys.argv[1:]
config = settings(Path(folder), database or None, redis)
app = Flask("books")
app.config["PORTICO"] = config
init_database(app, config)
with app.app_context():
    drainer = Killed(redis, Path(folder) / "spool")
    drainer.prepare()
    drainer.drain()
"""


@pytest.mark.both_databases
def test_a_drainer_killed_between_commit_and_acknowledge_posts_nothing_twice(
    ledger: Flask, wire: redis.Redis, redis_url: str, make_drainer: Callable[..., Drainer], tmp_path: Path
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
    heir = make_drainer()
    assert drain_all(heir) == 300
    assert heir.posted == 0
    assert books.count_entries() == 300
    assert wire.xlen(store.USAGE) == 0
    books.assert_sums_equal_entries()


# --- spool files -------------------------------------------------------------------------------------------------------


def spool(tmp_path: Path, *lines: bytes, name: str = "1-1") -> Path:
    path = tmp_path / "spool" / f"{name}.jsonl"
    path.write_bytes(b"".join(lines))
    return path


def line(told: UsageEvent) -> bytes:
    return encode(told) + b"\n"


def spent(wire: redis.Redis) -> int:
    return int(wire.hget(store.spent("organisation", "default", "total"), "spent") or 0)


def test_a_closed_spool_file_is_settled_posted_and_deleted(
    ledger: Flask, wire: redis.Redis, make_drainer: Callable[..., Drainer], tmp_path: Path
) -> None:
    lost = [event(cost_nano=5), event(cost_nano=7)]
    path = spool(tmp_path, *map(line, lost))
    drainer = make_drainer()
    assert drainer.clean() == 1
    assert not path.exists()
    assert spent(wire) == 12
    drain_all(drainer)  # the settle put them into the stream as well
    assert books.count_entries() == 2
    books.assert_sums_equal_entries()


def test_a_spool_file_in_use_is_left_alone(
    ledger: Flask, wire: redis.Redis, make_drainer: Callable[..., Drainer], tmp_path: Path
) -> None:
    path = spool(tmp_path, line(event()))
    drainer = make_drainer()
    with path.open("rb") as writer:
        fcntl.flock(writer, fcntl.LOCK_EX)
        assert drainer.clean() == 0
        assert path.exists()
    assert drainer.clean() == 1


@pytest.mark.both_databases
def test_what_was_settled_long_ago_is_not_charged_again(
    ledger: Flask, wire: redis.Redis, make_drainer: Callable[..., Drainer], tmp_path: Path
) -> None:
    told = event(cost_nano=5)
    the_meter(wire).settle_event(told)
    wire.delete(store.tombstone(told.request_id))  # tombstones do not last
    path = spool(tmp_path, line(told))
    drainer = make_drainer()
    assert drainer.clean() == 0, "its event waits in the stream still"
    assert path.exists()
    drain_all(drainer)
    assert drainer.clean() == 1
    assert spent(wire) == 5
    assert books.count_entries() == 1


@pytest.mark.both_databases
def test_of_two_tellings_the_settled_one_is_booked(
    ledger: Flask, wire: redis.Redis, make_drainer: Callable[..., Drainer], tmp_path: Path
) -> None:
    told = event(cost_nano=5)
    by_reaper = event(request_id=told.request_id, attempt=0, cost_nano=3)
    drainer = make_drainer()
    path = spool(tmp_path, line(told))
    settle_event = drainer._meter.settle_event

    def late(_: UsageEvent) -> bool:  # the reaper comes between the look into the books and the settle
        settle_event(by_reaper)
        return settle_event(told)

    drainer._meter.settle_event = late  # type: ignore[method-assign]
    assert drainer.clean() == 0
    drain_all(drainer)
    assert drainer.clean() == 1
    assert not path.exists()
    assert spent(wire) == 3
    assert books.count_entries() == 1
    books.assert_sums_equal_entries()


def test_a_settled_event_that_never_came_is_booked_from_the_spool_after_a_while(
    ledger: Flask,
    wire: redis.Redis,
    make_drainer: Callable[..., Drainer],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told = event()
    wire.set(store.tombstone(told.request_id), 1)
    spool(tmp_path, line(told))
    drainer = make_drainer()
    assert drainer.clean() == 0
    monkeypatch.setattr(drainer_module, "DOUBTFUL_S", 0)
    assert drainer.clean() == 1
    assert books.count_entries() == 1


def test_an_event_that_the_meter_refuses_holds_up_no_other_and_is_in_the_books_in_the_end(
    ledger: Flask,
    wire: redis.Redis,
    make_drainer: Callable[..., Drainer],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    refused, beside, behind = event(cost_nano=5), event(cost_nano=7), event(cost_nano=11)
    wire.rpush(store.tombstone(refused.request_id), "no tombstone")
    first = spool(tmp_path, line(refused), line(beside))
    second = spool(tmp_path, line(behind), name="2-2")
    drainer = make_drainer()
    drainer.clean()
    drain_all(drainer)
    drainer.clean()
    drain_all(drainer)
    assert first.exists() and not second.exists()
    assert books.count_entries() == 2 and spent(wire) == 18
    monkeypatch.setattr(drainer_module, "DOUBTFUL_S", 0)
    assert drainer.clean() == 1
    assert books.count_entries() == 3
    books.assert_sums_equal_entries()


def test_a_spool_file_waits_for_a_redis_that_takes_no_writes(
    ledger: Flask,
    wire: redis.Redis,
    make_drainer: Callable[..., Drainer],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(drainer_module, "DOUBTFUL_S", 0)
    path = spool(tmp_path, line(event(cost_nano=5)))
    drainer = make_drainer()
    settle_event = drainer._meter.settle_event
    for error in (OutOfMemoryError("command not allowed"), ResponseError("MISCONF Redis cannot write to its disk")):
        monkeypatch.setattr(drainer._meter, "settle_event", Mock(side_effect=error))
        with pytest.raises(ResponseError):
            drainer.clean()
        assert path.exists() and books.count_entries() == 0
    monkeypatch.setattr(drainer._meter, "settle_event", settle_event)
    assert drainer.clean() == 1
    assert books.count_entries() == 1 and spent(wire) == 5


@pytest.mark.both_databases
def test_a_torn_last_line_is_told_and_a_broken_line_becomes_a_dead_letter(
    ledger: Flask, wire: redis.Redis, make_drainer: Callable[..., Drainer], tmp_path: Path
) -> None:
    whole, unended = event(), event()
    spool(tmp_path, line(whole), b"{broken}\n", line(event())[:40])
    spool(tmp_path, line(unended)[:-1], name="2-2")
    drainer = make_drainer()
    assert drainer.clean() == 1
    drain_all(drainer)  # the first file's event is in the stream now, which the second one's turn waits for
    assert drainer.clean() == 1
    assert drainer.torn == 1
    assert [letter.raw for letter in letters()] == ["{broken}"]
    assert books.count_entries() == 2


def test_an_empty_spool_file_is_deleted(ledger: Flask, make_drainer: Callable[..., Drainer], tmp_path: Path) -> None:
    path = spool(tmp_path)
    assert make_drainer().clean() == 1
    assert not path.exists()


@pytest.mark.both_databases
def test_a_spool_file_survives_a_database_that_is_away(
    ledger: Flask, make_drainer: Callable[..., Drainer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = spool(tmp_path, line(event()))
    drainer = make_drainer()

    def away(*_: object) -> set[str]:
        raise OperationalError("SELECT", {}, Exception("the server is away"))

    with monkeypatch.context() as broken:
        broken.setattr(posting, "known_requests", away)
        with pytest.raises(OperationalError):
            drainer.clean()
    assert path.exists()
    assert drainer.clean() == 1
    assert books.count_entries() == 1


# --- holds, and the whole process -----------------------------------------------------------------------------------------


class Expiring(Meter):
    """A meter that notes what it is asked."""

    def __init__(self, wire: redis.Redis) -> None:
        super().__init__(wire.execute_command, lambda: server_run(wire))
        self.asked: list[str] = []

    def expire(self, request_id: str) -> None:
        self.asked.append(request_id)
        if request_id == "bad":
            raise ValueError("no such event")

    def settle_event(self, told: UsageEvent) -> bool:
        return True


def test_the_reaper_asks_for_leases_that_have_ended_only(
    ledger: Flask, wire: redis.Redis, make_drainer: Callable[..., Drainer]
) -> None:
    now = clock.now_ms()
    wire.zadd(store.LEASES, {"bad": now - 9000, "over": now - 1000, "alive": now + 20_000})
    meter = Expiring(wire)
    drainer = make_drainer(meter=meter)
    assert drainer.reap() == 2
    assert meter.asked == ["bad", "over"]


def test_a_hold_that_redis_cannot_read_keeps_no_other_from_its_end(
    ledger: Flask, wire: redis.Redis, make_drainer: Callable[..., Drainer]
) -> None:
    wire.set(store.hold("bad"), "no hold")
    told = event(attempt=0)
    the_meter(wire).reserve(
        told.request_id, (ScopeRef("key", "key-1", "app"),), Charge(100, 0, 1, 10, 10, True, 10), encode(told)
    )
    wire.zadd(store.LEASES, {"bad": 1, told.request_id: 2})
    drainer = make_drainer()
    assert drainer.reap() == 2
    assert int(wire.hget(store.spent("key", "key-1", "total"), "held") or 0) == 0
    assert "reaper" in drainer.trouble


@pytest.mark.parametrize("progress", [None, 40])
def test_a_hold_whose_lease_has_ended_reaches_the_books(
    ledger: Flask, wire: redis.Redis, make_drainer: Callable[..., Drainer], progress: int | None
) -> None:
    scopes = (ScopeRef("key", "key-1", "app"), ScopeRef("organisation", "default", "all"))
    told = event(attempt=0, outcome="cancelled", cost_nano=0, scopes=tuple((*scope[:2], "total") for scope in scopes))
    meter = the_meter(wire)
    charge = Charge(100, 0, 1, 10, 10, True, 10)
    hold = meter.reserve(told.request_id, scopes, charge, encode(told))
    if progress is not None:
        assert meter.beat(hold, progress, encode(msgspec.structs.replace(told, cost_nano=progress)))
    drainer = make_drainer()
    assert drainer.reap() == 0
    assert int(wire.hget(store.spent("key", "key-1", "total"), "held") or 0) == 100
    wire.zadd(store.LEASES, {told.request_id: 1})
    assert drainer.reap() == 1
    drain_all(drainer)
    (entry,) = db.session.scalars(select(UsageEntry))
    assert entry.cost_nano == (progress or 0)
    assert spent(wire) == (progress or 0)
    assert int(wire.hget(store.spent("key", "key-1", "total"), "held") or 0) == 0
    assert reconcile.compare(wire, recent_ms=10**13, pause_s=0) == (2, [])


@pytest.mark.both_databases
def test_running_drains_reaps_publishes_and_tells_until_it_is_stopped(
    ledger: Flask, wire: redis.Redis, make_drainer: Callable[..., Drainer], tmp_path: Path
) -> None:
    caught_up = threading.Event()
    meter = Expiring(wire)
    drainer = make_drainer(meter=meter, catch_up=caught_up.set)
    wire.zadd(store.LEASES, {"over": 1})
    spool(tmp_path, line(event()))

    with at_work(ledger, drainer):
        send(wire, some_events(100))
        until(
            lambda: (
                caught_up.is_set()
                and books.count_entries() == 101
                and wire.hget(store.DRAINER_STATUS, "posted") == "101"
            )
        )
    assert books.count_entries() == 101
    assert "over" in meter.asked
    assert caught_up.is_set()
    status = wire.hgetall(store.DRAINER_STATUS)
    assert (status["posted"], status["lag_events"], status["trouble"]) == ("101", "0", "")
    assert wire.xinfo_consumers(store.USAGE, store.USAGE_GROUP) == []


def test_a_drainer_whose_loop_stands_still_tells_of_itself_no_more(
    ledger: Flask, wire: redis.Redis, make_drainer: Callable[..., Drainer], monkeypatch: pytest.MonkeyPatch
) -> None:
    drainer = make_drainer()
    drainer.report()
    assert "drainer" not in heartbeats.missing(wire)
    wire.delete(store.heartbeat("drainer"))
    monkeypatch.setattr(drainer, "_turned", time.monotonic() - drainer_module.STANDS_STILL_S)
    drainer.report()
    assert "drainer" in heartbeats.missing(wire)


@pytest.mark.both_databases
def test_events_that_trickle_in_share_transactions(
    ledger: Flask, wire: redis.Redis, make_drainer: Callable[..., Drainer], monkeypatch: pytest.MonkeyPatch
) -> None:
    posted: list[int] = []
    post = posting.post

    def counted(events: list[UsageEvent]) -> int:
        posted.append(len(events))
        return post(events)

    monkeypatch.setattr(posting, "post", counted)
    with at_work(ledger, make_drainer()):
        for told in some_events(40):
            send(wire, [told])
            time.sleep(0.01)
        until(lambda: sum(posted) == 40)
    assert len(posted) < 20


@pytest.mark.both_databases
def test_holds_are_reaped_while_the_database_is_away(
    ledger: Flask, wire: redis.Redis, make_drainer: Callable[..., Drainer], monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(_: object) -> int:
        raise OperationalError("INSERT", {}, Exception("the server is away"))

    monkeypatch.setattr(posting, "post", away)
    meter = Expiring(wire)
    drainer = make_drainer(meter=meter)
    send(wire, some_events(5))

    with at_work(ledger, drainer):
        time.sleep(0.3)
        wire.zadd(store.LEASES, {"over": 1})
        until(lambda: meter.asked and wire.hget(store.DRAINER_STATUS, "trouble"))
        assert "posting: OperationalError" in (wire.hget(store.DRAINER_STATUS, "trouble") or "")
    assert wire.xlen(store.USAGE) == 5


def test_the_process_drains_and_ends_on_sigterm(redis_url: str, wire: redis.Redis, tmp_path: Path) -> None:
    config = books.settings(tmp_path, None, redis_url)
    app = books.open_books(config)
    environ = {name: value for name, value in os.environ.items() if not name.startswith("CONFIG_")} | {
        "CONFIG_STORAGE_DATA_DIR": str(tmp_path),
        "CONFIG_REDIS_URL": redis_url,
    }
    send(wire, some_events(200))
    process = subprocess.Popen(
        [sys.executable, "-m", "app.jobs.drainer"],
        env=environ, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).resolve().parents[2],
    )  # fmt: skip
    try:
        with app.app_context():
            until(lambda: books.count_entries() >= 200)
            assert books.count_entries() == 200
            process.send_signal(signal.SIGTERM)
            output, _ = process.communicate(timeout=PATIENCE_S)
            assert process.returncode == 0, output
            assert '"the drainer has stopped"' in output
            books.assert_sums_equal_entries()
            db.engine.dispose()
    finally:
        process.kill()
        process.wait()


@pytest.mark.both_databases
def test_the_counters_that_were_charged_are_looked_at_for_alerts_and_none_is_lost(
    ledger: Flask, wire: redis.Redis, make_drainer: Callable[..., Drainer]
) -> None:
    looked: list[set[Any]] = []
    away = True

    def look(charged: Any, refused: Any) -> None:
        if away:
            raise OperationalError("SELECT", None, Exception("away"))
        looked.append(set(charged))

    drainer = make_drainer(alert=look)
    events = some_events(300)
    send(wire, events)
    drain_all(drainer)
    with pytest.raises(OperationalError):
        drainer.alert()
    away = False
    send(wire, events)  # delivered again
    drain_all(drainer)
    drainer.alert()
    drainer.alert()
    assert looked == [{scope for told in events for scope in told.scopes}, set()]


@pytest.mark.both_databases
def test_a_budget_that_refused_is_judged_once_the_books_know_what_was_spent_before(
    ledger: Flask, wire: redis.Redis, make_drainer: Callable[..., Drainer]
) -> None:
    noted: list[tuple[str, str]] = [("user", "ada")]
    judged: list[set[tuple[str, str]]] = []
    away = True

    def take() -> list[tuple[str, str]]:
        taken = noted.copy()
        noted.clear()
        return taken

    def judge(charged: Any, refused: Any) -> None:
        judged.append(set(refused))
        if refused and away:
            raise OperationalError("SELECT", None, Exception("away"))

    drainer = make_drainer(alert=judge, exhausted=take)
    send(wire, some_events(5))
    drainer.alert()
    drain_all(drainer)
    send(wire, some_events(5, seed=1))  # what came after the refusal is not waited for
    with pytest.raises(OperationalError):
        drainer.alert()
    away = False
    drainer.alert()
    drainer.alert()
    assert judged == [set(), {("user", "ada")}, {("user", "ada")}, set()]
