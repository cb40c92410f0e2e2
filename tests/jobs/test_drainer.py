"""The drainer as a whole: its parts work side by side, and trouble of one does not stop the others."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import redis
from flask import Flask
from sqlalchemy.exc import OperationalError

from app import store
from app.extensions import db
from app.jobs.drainer import Drainer
from app.ledger import posting
from app.ledger.recount import is_open
from app.metering.usage import UsageEvent
from tests.jobs.at_work import at_work
from tests.jobs.usage import Expiring, line, send, spool
from tests.ledger import books
from tests.ledger.books import event, some_events
from tests.services.waiting import PATIENCE_S, until

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("open_meter")]


@pytest.fixture
def make_drainer(redis_url: str, spool_dir: Path) -> Callable[..., Drainer]:
    def make(**options: Any) -> Drainer:
        made = Drainer(redis_url, spool_dir, **{"claim_after_ms": 50, **options})
        made.stream.prepare()
        return made

    return make


@pytest.mark.both_databases
def test_running_drains_reaps_publishes_and_tells_until_it_is_stopped(
    ledger: Flask, wire: redis.Redis, make_drainer: Callable[..., Drainer], spool_dir: Path
) -> None:
    caught_up = threading.Event()
    meter = Expiring(wire)
    drainer = make_drainer(meter=meter, catch_up=caught_up.set)
    wire.zadd(store.LEASES, {"over": 1})
    spool(spool_dir, line(event()))

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


def test_one_turn_publishes_opens_the_meter_replays_spools_and_looks_for_alerts_in_this_order(
    ledger: Flask, wire: redis.Redis, make_drainer: Callable[..., Drainer], spool_dir: Path
) -> None:
    wire.delete(store.METER)
    told = event()
    left = spool(spool_dir, line(told))
    charged: list[set[Any]] = []

    def publish_and_stop() -> None:
        wire.set(store.DIRECTORY_VERSION, "1")
        drainer.stop()

    drainer = make_drainer(catch_up=publish_and_stop, raise_alerts=lambda seen, refused: charged.append(set(seen)))
    drainer.run()
    assert is_open(wire)
    assert (books.count_entries(), left.exists()) == (1, False)
    assert charged == [set(told.scopes)]
    assert drainer.trouble.parts == {}


def test_trouble_of_a_part_stops_no_other_and_is_shown_until_it_works_again(
    ledger: Flask, wire: redis.Redis, make_drainer: Callable[..., Drainer], spool_dir: Path
) -> None:
    broken = True

    def catch_up() -> None:
        if broken:
            raise ValueError("nothing can be published")

    spool(spool_dir, line(event()))
    with at_work(ledger, make_drainer(catch_up=catch_up)):
        until(lambda: wire.hget(store.DRAINER_STATUS, "trouble") == "publication: ValueError")
        until(lambda: books.count_entries() == 1)
        broken = False
        until(lambda: wire.hget(store.DRAINER_STATUS, "trouble") == "")


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
