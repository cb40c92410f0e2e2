"""The job `rollups`: derives what changed, and tells the status page what it found."""

from __future__ import annotations

import redis
from flask import Flask
from sqlalchemy import func, select, update

from app import clock, store
from app.extensions import db
from app.jobs import rollups
from app.ledger import posting
from app.ledger.rollups import HOURLY, ROLLUP
from tests.ledger.books import now_event


def days() -> int:
    db.session.rollback()
    return db.session.scalar(select(func.count()).select_from(ROLLUP).where(ROLLUP.c.kind == "day")) or 0


def test_days_are_derived_once_and_it_is_told_when(ledger: Flask, wire: redis.Redis) -> None:
    posting.post([now_event()])
    rollups.run()
    assert days() == 1
    told = wire.hgetall(store.ROLLUPS_STATUS)
    assert (told["derived"], told["differences"], told["first_difference"]) == ("1", "0", "")
    assert abs(int(told["at_ms"]) - clock.now_ms()) < 60_000
    rollups.run()
    assert days() == 1
    assert wire.hget(store.ROLLUPS_STATUS, "derived") == "0"


def test_a_sum_that_is_wrong_is_told_with_where_it_stands(ledger: Flask, wire: redis.Redis) -> None:
    posting.post([now_event()])
    with db.engine.begin() as connection:
        connection.execute(update(HOURLY).values(requests=HOURLY.c.requests + 1))
    rollups.run()
    told = wire.hgetall(store.ROLLUPS_STATUS)
    assert int(told["differences"]) >= 1
    first = told["first_difference"]
    assert "'kind': 'hour'" in first and "'kept': (2, " in first and "'counted': (1, " in first
