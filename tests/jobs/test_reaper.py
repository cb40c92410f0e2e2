"""The reaper: a hold ends with its lease, whatever its neighbours are."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
import redis
from flask import Flask
from sqlalchemy import select

from app import clock, store
from app.extensions import db
from app.jobs.reaper import Reaper
from app.jobs.stream import Stream
from app.jobs.trouble import Trouble
from app.ledger import spools
from app.ledger.entries import UsageEntry
from app.metering.outbox import REAPER
from app.metering.reservations import Charge
from app.metering.scopes import ScopeRef
from app.workflows import reconcile
from tests.jobs.usage import Expiring, drain_all, spent, the_meter
from tests.ledger.books import encode, event

pytestmark = pytest.mark.usefixtures("open_meter")


@pytest.fixture
def trouble() -> Trouble:
    return Trouble()


@pytest.fixture
def reaper(client: redis.Redis, spool_dir: Path, trouble: Trouble) -> Reaper:
    return Reaper(the_meter(client), spool_dir, trouble)


def test_the_reaper_asks_for_leases_that_have_ended_only(wire: redis.Redis, spool_dir: Path) -> None:
    now = clock.now_ms()
    wire.zadd(store.LEASES, {"bad": now - 9000, "over": now - 1000, "alive": now + 20_000})
    meter = Expiring(wire)
    reaper = Reaper(meter, spool_dir, Trouble())
    assert reaper.reap() == 2
    assert meter.asked == ["bad", "over"]


def test_a_hold_that_redis_cannot_read_keeps_no_other_from_its_end(
    wire: redis.Redis, reaper: Reaper, trouble: Trouble
) -> None:
    wire.set(store.hold("bad"), "no hold")
    told = event(attempt=0)
    the_meter(wire).reserve(
        told.request_id, (ScopeRef("key", "key-1", "app"),), Charge(100, 0, 1, 10, 10, True, 10), encode(told)
    )
    wire.zadd(store.LEASES, {"bad": 1, told.request_id: 2})
    assert reaper.reap() == 2
    assert int(wire.hget(store.spent("key", "key-1", "total"), "held") or 0) == 0
    assert "reaper" in trouble.parts


@pytest.mark.parametrize("progress", [None, 40])
def test_a_hold_whose_lease_has_ended_reaches_the_books(
    ledger: Flask, wire: redis.Redis, stream: Stream, reaper: Reaper, progress: int | None
) -> None:
    scopes = (ScopeRef("key", "key-1", "app"), ScopeRef("organisation", "default", "all"))
    told = event(attempt=0, outcome="cancelled", cost_nano=0, scopes=tuple((*scope[:2], "total") for scope in scopes))
    meter = the_meter(wire)
    charge = Charge(100, 0, 1, 10, 10, True, 10)
    hold = meter.reserve(told.request_id, scopes, charge, encode(told))
    if progress is not None:
        assert meter.beat(hold, progress, encode(msgspec.structs.replace(told, cost_nano=progress)))
    assert reaper.reap() == 0
    assert int(wire.hget(store.spent("key", "key-1", "total"), "held") or 0) == 100
    wire.zadd(store.LEASES, {told.request_id: 1})
    assert reaper.reap() == 1
    drain_all(stream)
    (entry,) = db.session.scalars(select(UsageEntry))
    assert entry.cost_nano == (progress or 0)
    assert spent(wire) == (progress or 0)
    assert int(wire.hget(store.spent("key", "key-1", "total"), "held") or 0) == 0
    assert reconcile.compare(wire, recent_ms=10**13, pause_s=0) == (2, [])


def test_what_was_reaped_is_in_the_reaper_s_spool_until_the_ledger_has_it(
    wire: redis.Redis, reaper: Reaper, spool_dir: Path
) -> None:
    told = event(attempt=0)
    the_meter(wire).reserve(
        told.request_id, (ScopeRef("key", "key-1", "app"),), Charge(100, 0, 1, 10, 10, True, 10), encode(told)
    )
    assert (reaper.reap(), list(spool_dir.iterdir())) == (0, [])
    wire.zadd(store.LEASES, {told.request_id: 1})
    assert (reaper.reap(), reaper.reaped) == (1, 1)
    (kept,) = spool_dir.iterdir()
    assert kept.name.startswith(REAPER)
    assert spools.decode(kept.read_bytes().strip()).request_id == told.request_id


def test_a_redis_that_is_away_ends_the_turn(wire: redis.Redis, spool_dir: Path, trouble: Trouble) -> None:
    class Away(Expiring):
        def expire(self, request_id: str) -> None:
            super().expire(request_id)
            raise redis.ConnectionError("away")

    wire.zadd(store.LEASES, {"first": 1, "second": 2})
    meter = Away(wire)
    with pytest.raises(redis.ConnectionError):
        Reaper(meter, spool_dir, trouble).reap()
    assert (meter.asked, trouble.parts) == (["first"], {})
