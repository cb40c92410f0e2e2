"""Alerts about the deployment: raised once after a while beyond, told once when over, and shown on the status page."""

from __future__ import annotations

import shutil
from collections import namedtuple
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
import redis
from flask import Flask
from sqlalchemy import select

from app import clock, current, store
from app.domain.deliveries import Delivery
from app.domain.notices import Notice
from app.extensions import db
from app.jobs import watch as job
from app.ledger import posting
from app.workflows import watch
from tests.house import People
from tests.ledger.books import event

Tune = Callable[..., None]
Usage = namedtuple("Usage", "total used free")


@pytest.fixture
def tune(people: People, monkeypatch: pytest.MonkeyPatch, set_clock: Any) -> Tune:
    """Sets thresholds; those not named are off. The clock stands still at now."""
    set_clock(clock.now())

    def change(**thresholds: Any) -> None:
        config = msgspec.structs.replace(
            current.config(), webhook=msgspec.structs.replace(current.config().webhook, url="http://x")
        )
        off = dict.fromkeys(("error_percent", "first_token_s", "usage_lag_s", "disk_free_percent"), 0) | {
            "providers": False
        }
        alerts = msgspec.structs.replace(config.alerts, **off | thresholds)
        monkeypatch.setattr(current, "config", lambda: msgspec.structs.replace(config, alerts=alerts))

    return change


def disk(monkeypatch: pytest.MonkeyPatch, free: int) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: Usage(100, 100 - free, free))


def titles() -> list[str]:
    return list(db.session.scalars(select(Notice.title).where(Notice.kind == "deployment.alert").order_by(Notice.id)))


def test_a_figure_beyond_its_threshold_is_told_once_after_a_while_and_once_when_it_is_back(
    tune: Tune, people: People, wire: redis.Redis, monkeypatch: pytest.MonkeyPatch, set_clock: Any
) -> None:
    tune(disk_free_percent=10, after_minutes=3)
    disk(monkeypatch, 4)
    for _ in range(3):
        job.run()
        assert titles() == []
        set_clock.move(60)
    for _ in range(3):
        job.run()
    assert titles() == ["Free disk: 4.0%"]
    [alarm] = watch.alarms(wire)
    assert (alarm.notified, alarm.reading.threshold) == (True, "below 10%")
    disk(monkeypatch, 40)
    job.run()
    job.run()
    assert titles() == ["Free disk: 4.0%", "Free disk: back to normal"]
    called = [row.payload for row in db.session.scalars(select(Delivery).where(Delivery.channel == "webhook"))]
    assert [(one["alert"], one["state"], one["people"]) for one in called] == [
        ("disk_free_percent", "raised", ["admin"]), ("disk_free_percent", "over", ["admin"]),
    ]  # fmt: skip


def test_a_short_excess_is_told_to_nobody(tune: Tune, monkeypatch: pytest.MonkeyPatch, set_clock: Any) -> None:
    tune(disk_free_percent=10, after_minutes=3)
    for free in (4, 40, 4, 40):
        disk(monkeypatch, free)
        job.run()
        set_clock.move(120)
    assert titles() == []


def test_shares_and_percentiles_are_of_the_last_minutes_and_of_enough_calls(tune: Tune) -> None:
    tune(error_percent=5, first_token_s=2)

    def now() -> dict[str, bool | None]:
        db.session.rollback()  # a new look sees what was posted since
        return {reading.setting: reading.is_beyond for reading in watch.look()}

    posting.post([event(at_ms=clock.now_ms() - 400_000, outcome="error", status=502) for _ in range(30)])
    posting.post([event(at_ms=clock.now_ms() - 1000, stream=True, ttft_ms=5000) for _ in range(19)])
    assert now() == {"error_percent": None, "first_token_s": None}
    posting.post([event(at_ms=clock.now_ms() - 1000, stream=True, ttft_ms=5000)])
    assert now() == {"error_percent": False, "first_token_s": True}
    posting.post([event(at_ms=clock.now_ms() - 1000, outcome="error", status=502) for _ in range(2)])
    assert now()["error_percent"] is True


def test_what_is_not_known_neither_raises_nor_ends_an_alert(
    tune: Tune, wire: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    tune(disk_free_percent=10, after_minutes=0)
    disk(monkeypatch, 4)
    job.run()
    monkeypatch.setattr(watch, "_percent", lambda *_, **__: None)
    job.run()
    assert titles() == ["Free disk: 4.0%"]
    assert watch.alarms(wire)[0].notified


def test_what_another_version_wrote_is_left_out(tune: Tune, inside: Flask, wire: redis.Redis) -> None:
    wire.hset(store.ALARMS, "x", '{"reading": 1}')
    assert watch.alarms(wire) == []
    tune()
    job.run()
    assert not wire.exists(store.ALARMS)
