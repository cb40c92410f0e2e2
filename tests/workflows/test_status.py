"""How this Portico is doing: what is read of each part, what is said of it, and what of it is worth a word."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
import redis
from flask import Flask
from redis.backoff import NoBackoff
from redis.retry import Retry
from sqlalchemy.exc import OperationalError

from app import clock, current, store
from app.extensions import db
from app.ledger import posting
from app.ledger.recount import server_run
from app.runtime import heartbeats
from app.workflows import status
from app.workflows.reconcile import Drift
from app.workflows.status import Condition

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
WELL = status.Store(name="x", kind="X 1", embedded=True, latency_ms=0.1)
AWAY = status.Store(name="x", kind=None, embedded=True, latency_ms=None)
RUNNING = [status.Process(name=name, running=True) for name in heartbeats.PROCESSES]
DRAINER = status.Drainer(
    at=NOON, running=True, lag_events=0, lag_ms=0, posted=0, reaped=0, replayed=0, spools_waiting=0, torn_lines=0, trouble=""
)  # fmt: skip
ROLLUPS = status.Rollups(at=NOON, overdue=False, derived=0, differences=0, first_difference="")
QUOTAS = status.Quotas(at=NOON, overdue=False, compared=0, drifting=0, drift=[])
TIMES = status.Times(difference_ms=0, step_ms=None, stepped_at=None)
OPEN = status.Meter(open=True, counting=False)


def condition(**parts: Any) -> Condition:
    base = {
        "at": NOON, "database": WELL, "redis": WELL, "meter": OPEN, "processes": RUNNING, "times": TIMES,
        "drainer": DRAINER, "rollups": ROLLUPS, "quotas": QUOTAS, "usage_waiting": 0, "changes_waiting": 0,
        "dead_letters": 0, "versions": {},
    }  # fmt: skip
    return Condition(**{**base, **parts})


def but(part: Any, **changes: Any) -> Any:
    return msgspec.structs.replace(part, **changes)


def test_where_all_is_well_there_is_nothing_to_say() -> None:
    assert (condition().level, condition().concerns) == ("ok", [])
    unknown = dict.fromkeys(("meter", "times", "drainer", "rollups", "quotas", "dead_letters"))
    assert condition(**unknown).concerns == [], "what was never told is no trouble"


@pytest.mark.parametrize(
    ("parts", "level", "word"),
    [
        ({"database": AWAY}, "danger", "database"),
        ({"redis": AWAY}, "danger", "Redis"),
        ({"meter": but(OPEN, open=False)}, "danger", "meter"),
        ({"meter": status.Meter(open=False, counting=True)}, "danger", "recount"),
        ({"processes": [*RUNNING[1:], but(RUNNING[0], running=False)]}, "danger", "drainer"),
        ({"processes": [*RUNNING[:2], but(RUNNING[2], running=False)]}, "warning", "clock"),
        ({"drainer": but(DRAINER, lag_ms=status.SLOW_MS + 1)}, "warning", "late"),
        ({"drainer": but(DRAINER, trouble="the disk is full")}, "warning", "the disk is full"),
        ({"times": but(TIMES, difference_ms=-6_000)}, "warning", "6 s"),
        ({"times": but(TIMES, step_ms=-7_000, stepped_at=NOON)}, "warning", "back by 7 s"),
        ({"times": but(TIMES, step_ms=7_000, stepped_at=NOON)}, "warning", "ahead by 7 s"),
        ({"rollups": but(ROLLUPS, overdue=True)}, "warning", "overdue"),
        ({"quotas": but(QUOTAS, overdue=True)}, "warning", "overdue"),
        ({"rollups": but(ROLLUPS, differences=1)}, "danger", "differ"),
        ({"quotas": but(QUOTAS, drifting=1)}, "danger", "1 counter "),
        ({"quotas": but(QUOTAS, drifting=2)}, "danger", "2 counters "),
        ({"dead_letters": 1}, "warning", "1 "),
    ],
)
def test_each_thing_that_is_wrong_is_said_once(parts: dict[str, Any], level: str, word: str) -> None:
    found = condition(**parts)
    assert [(one.level, word in one.what) for one in found.concerns] == [(level, True)]
    assert found.level == level


@pytest.mark.parametrize(
    "parts",
    [
        {"drainer": but(DRAINER, lag_ms=status.SLOW_MS)},
        {"drainer": but(DRAINER, running=False, lag_ms=10**9, trouble="x")},  # what it said last is old
        {"times": but(TIMES, difference_ms=5_000)},
    ],
)
def test_what_is_borne_is_not_worth_a_word(parts: dict[str, Any]) -> None:
    assert condition(**parts).concerns == []


def test_the_worst_comes_first() -> None:
    found = condition(dead_letters=2, quotas=but(QUOTAS, drifting=1), drainer=but(DRAINER, trouble="x"))
    assert [one.level for one in found.concerns] == ["danger", "warning", "warning"]
    assert found.level == "danger"


# --- what is read ---


def test_an_empty_redis_tells_that_nothing_runs(inside: Flask) -> None:
    found = status.present()
    assert (found.database.answers, found.redis.answers, found.meter) == (
        True,
        True,
        status.Meter(open=False, counting=False),
    )
    assert [one.running for one in found.processes] == [False] * 3
    assert (found.drainer, found.rollups, found.quotas) == (None, None, None)
    assert (found.usage_waiting, found.dead_letters) == (0, 0)
    assert found.versions["Portico"] == status.version() != "unknown"


@pytest.mark.parametrize(
    ("meter", "open"),
    [({"epoch": "1"}, False), ({"epoch": "1", "run_id": "another"}, False), ({"epoch": "1", "run_id": None}, True)],
)
def test_a_meter_of_another_run_of_redis_is_closed(
    inside: Flask, wire: redis.Redis, meter: dict[str, str | None], open: bool
) -> None:
    wire.hset(store.METER, mapping={name: value or server_run(wire) for name, value in meter.items()})
    found = status.present().meter
    assert found is not None and found.open is open


def test_jobs_are_overdue_after_a_while(inside: Flask, wire: redis.Redis) -> None:
    for late, ago in ((False, status.OVERDUE_S - 30), (True, status.OVERDUE_S + 30)):
        for name in (store.ROLLUPS_STATUS, store.QUOTAS_STATUS):
            wire.hset(name, "at_ms", clock.now_ms() - ago * 1000)
        found = status.present()
        assert found.rollups is not None and found.quotas is not None
        assert (found.rollups.overdue, found.quotas.overdue) == (late, late)


def test_what_the_drainer_tells_is_told_with_whether_it_runs(inside: Flask, wire: redis.Redis) -> None:
    wire.hset(store.DRAINER_STATUS, mapping={"at_ms": clock.now_ms(), "lag_ms": 20_000, "posted": 7, "trouble": "t"})
    posting.bury("stream 7-0", b"nonsense", "not JSON")
    wire.xadd(store.USAGE, {"e": "x"})
    found = status.present()
    assert found.drainer is not None
    assert (found.drainer.running, found.drainer.lag_ms, found.drainer.posted, found.drainer.torn_lines) == (
        False,
        20_000,
        7,
        0,
    )
    assert (found.usage_waiting, found.dead_letters) == (1, 1)
    heartbeats.beat(wire, "drainer")
    found = status.present()
    assert found.drainer is not None and found.drainer.running


def test_a_redis_that_is_away_silences_nothing_else(inside: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = redis.Redis(unix_socket_path="/nonexistent", retry=Retry(NoBackoff(), 0))
    monkeypatch.setattr(current, "redis", lambda: gone)
    found = status.present()
    assert (found.redis.answers, found.database.answers, found.dead_letters) == (False, True, 0)
    assert (found.processes, found.meter, found.usage_waiting) == ([], None, None)
    assert [one.level for one in found.concerns] == ["danger"]


def test_a_database_that_is_away_silences_nothing_else(
    inside: Flask, wire: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: object) -> None:
        raise OperationalError("SELECT", None, Exception("away"))

    monkeypatch.setattr(db.session, "scalar", away)
    found = status.present()
    assert (found.database.answers, found.redis.answers, found.dead_letters) == (False, True, None)
    assert found.usage_waiting == 0


def test_a_repaired_counter_goes_from_the_list_and_the_others_stay(inside: Flask, wire: redis.Redis) -> None:
    drifts = [Drift("user", name, "total", 10, 7) for name in ("ada", "bob")]
    told = [{**one._asdict(), "drift_nano": one.nano} for one in drifts]
    wire.hset(
        store.QUOTAS_STATUS,
        mapping={"at_ms": clock.now_ms(), "drifting": 60, "drift": msgspec.json.encode(told)},
    )
    for _ in range(2):  # again: it is gone already
        status.forget_drift(wire, drifts[0])
        found = status.present().quotas
        assert found is not None
        assert (found.drift, found.drifting) == ([drifts[1]], 59)
    wire.delete(store.QUOTAS_STATUS)
    status.forget_drift(wire, drifts[0])
    assert not wire.exists(store.QUOTAS_STATUS)


def test_a_moment_is_an_instant_of_utc() -> None:
    assert status._moment({"at_ms": "1000"}) == datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=1)
