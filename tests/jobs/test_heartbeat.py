"""The heartbeat: a drainer that stands still is missed, and its backlog is written down."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
import redis

from app import store
from app.jobs import heartbeat as heartbeat_module
from app.jobs.bookkeeper import Bookkeeper
from app.jobs.heartbeat import Heartbeat
from app.jobs.janitor import Janitor
from app.jobs.reaper import Reaper
from app.jobs.stream import Stream
from app.jobs.trouble import Trouble
from app.runtime import heartbeats
from tests.jobs.usage import the_meter

NOW_MS = 1_793_880_000_000


class Parts:
    """What a heartbeat reports of."""

    def __init__(self, client: redis.Redis, spool_dir: Path) -> None:
        meter = the_meter(client)
        self.trouble = Trouble()
        self.bookkeeper = Bookkeeper()
        self.stream = Stream(client, "ours", self.bookkeeper)
        self.janitor = Janitor(spool_dir, meter, self.stream, self.bookkeeper, self.trouble)
        self.reaper = Reaper(meter, spool_dir, self.trouble)
        self.heartbeat = Heartbeat(
            client, "ours", self.stream, self.bookkeeper, self.janitor, self.reaper, self.trouble
        )


@pytest.fixture
def parts(client: redis.Redis, spool_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Parts:
    monkeypatch.setattr("app.clock.now_ns", lambda: NOW_MS * 1_000_000)
    return Parts(client, spool_dir)


def test_a_drainer_whose_loop_stands_still_tells_of_itself_no_more(
    parts: Parts, wire: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts.heartbeat.report()
    assert "drainer" not in heartbeats.missing(wire)
    wire.delete(store.heartbeat("drainer"))
    monkeypatch.setattr(parts.heartbeat, "_turned", time.monotonic() - heartbeat_module.STANDS_STILL_S)
    parts.heartbeat.report()
    assert "drainer" in heartbeats.missing(wire)
    parts.heartbeat.turn()
    parts.heartbeat.report()
    assert "drainer" not in heartbeats.missing(wire)


def test_the_status_has_what_each_part_did(parts: Parts, wire: redis.Redis) -> None:
    wire.xadd(store.USAGE, {"e": "x"}, id=f"{NOW_MS - 700}-0")
    wire.xadd(store.USAGE, {"e": "x"}, id=f"{NOW_MS}-0")
    parts.bookkeeper.posted, parts.bookkeeper.dead = 1, 2
    parts.reaper.reaped = 3
    parts.janitor.replayed, parts.janitor.torn, parts.janitor.waiting = 4, 5, 6
    parts.trouble.note("spool", OSError())
    parts.trouble.note("alerts", ValueError())
    parts.heartbeat.report()
    assert wire.hgetall(store.DRAINER_STATUS) == {
        "name": "ours",
        "pid": str(os.getpid()),
        "at_ms": str(NOW_MS),
        "drained_ms": str(NOW_MS),
        "lag_events": "2",
        "lag_ms": "700",
        "posted": "1",
        "dead_letters": "2",
        "reaped": "3",
        "replayed": "4",
        "torn_lines": "5",
        "spools_waiting": "6",
        "trouble": "alerts: ValueError; spool: OSError",
    }


def test_nothing_that_waits_is_no_lag(parts: Parts, wire: redis.Redis) -> None:
    parts.heartbeat.report()
    status = wire.hgetall(store.DRAINER_STATUS)
    assert (status["lag_events"], status["lag_ms"], status["trouble"]) == ("0", "0", "")


def test_an_event_of_a_clock_ahead_is_no_lag(parts: Parts, wire: redis.Redis) -> None:
    wire.xadd(store.USAGE, {"e": "x"}, id=f"{NOW_MS + 700}-0")
    parts.heartbeat.report()
    assert wire.hget(store.DRAINER_STATUS, "lag_ms") == "0"
