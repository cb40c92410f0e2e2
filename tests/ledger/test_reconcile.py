"""Reconciling: drift is found and told, load and lag are not taken for it."""

from __future__ import annotations

import time

import pytest
import redis
from flask import Flask

from app import store
from app.ledger import posting, reconcile
from app.metering.usage import UsageEvent
from tests.ledger.books import encode, event


def now_event(**fields: object) -> UsageEvent:
    return event(at_ms=time.time_ns() // 1_000_000, **fields)


def charge(wire: redis.Redis, told: UsageEvent) -> None:
    for scope in told.scopes:
        wire.hincrby(store.spent(*scope), "spent", told.cost_nano)


@pytest.fixture
def wire(redis_url: str) -> redis.Redis:
    return store.connect(redis_url)


def test_counters_that_agree_do_not_drift(ledger: Flask, wire: redis.Redis) -> None:
    events = [now_event() for _ in range(5)]
    for told in events:
        charge(wire, told)
    posting.post(events)
    found = reconcile.compare(wire, pause_s=0)
    assert (found.compared, found.drift) == (3, [])


def test_what_waits_in_the_stream_is_no_drift(ledger: Flask, wire: redis.Redis) -> None:
    posted, waiting, both = now_event(), now_event(), now_event()
    for told in (posted, waiting, both):
        charge(wire, told)
    posting.post([posted, both])
    for told in (waiting, both):  # `both` is posted, and not yet deleted from the stream
        wire.xadd(store.USAGE, {"e": encode(told)})
    wire.xadd(store.USAGE, {"e": "no event"})
    assert reconcile.compare(wire, pause_s=0).drift == []


def test_a_difference_that_stays_is_drift(ledger: Flask, wire: redis.Redis) -> None:
    told = now_event(cost_nano=100)
    charge(wire, told)
    wire.hincrby(store.spent("key", "key-1", "total"), "spent", 7)
    posting.post([told])
    (drift,) = reconcile.compare(wire, pause_s=0).drift
    assert drift == ("key", "key-1", "total", 107, 100)
    assert drift.nano == 7


def test_a_difference_that_moves_is_load(ledger: Flask, wire: redis.Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    told = now_event()
    charge(wire, told)
    posting.post([told])
    look = reconcile._look

    def busy(*arguments: object) -> object:
        wire.hincrby(store.spent("organisation", "default", "total"), "spent", 1)
        return look(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(reconcile, "_look", busy)
    assert reconcile.compare(wire, pause_s=0).drift == []


def test_past_periods_are_left_alone(ledger: Flask, wire: redis.Redis) -> None:
    told = now_event(scopes=(("user", "ada", "day-1000000"), ("user", "ada", f"day-{int(time.time()) - 3600}")))
    posting.post([told])
    found = reconcile.compare(wire, pause_s=0)
    assert found.compared == 1
    assert [drift.period for drift in found.drift] == [told.scopes[1][2]]


def test_too_long_a_backlog_is_not_compared(ledger: Flask, wire: redis.Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reconcile, "MOST_WAITING", 2)
    posting.post([now_event()])
    for _ in range(2):
        wire.xadd(store.USAGE, {"e": encode(now_event())})
    assert reconcile.compare(wire, pause_s=0) == (0, [])
