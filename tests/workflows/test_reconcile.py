"""Reconciling: drift is found and told, load and lag are not taken for it."""

from __future__ import annotations

import msgspec
import pytest
import redis
from flask import Flask

from app import clock, store
from app.domain.audit import AuditEntry
from app.domain.audit_chain import AuditHead
from app.domain.person import Person
from app.extensions import Base, db, transaction
from app.ledger import budgets, posting, rollups
from app.ledger.recount import server_run
from app.metering.usage import UsageEvent
from app.reports import usage as usage_reports
from app.workflows import dead_letters, reconcile
from tests.ledger.books import count_entries, encode, now_event


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
    told = now_event(scopes=(("user", "ada", "day-1000000"), ("user", "ada", f"day-{clock.now_s() - 3600}")))
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


class Drifting:
    """One counter that says 7 more than the books, the meter open, and an admin."""

    def __init__(self, wire: redis.Redis, period: str = "total") -> None:
        self.wire, self.key = wire, store.spent("key", "team:7", period)
        self.name = f"key:team:7:{period}"
        told = now_event(cost_nano=100, scopes=(("key", "team:7", period),))
        charge(wire, told)
        wire.hincrby(self.key, "spent", 7)
        posting.post([told])
        wire.hset(store.METER, mapping={"epoch": "1", "run_id": server_run(wire)})
        tables = (AuditEntry, AuditHead)
        Base.metadata.create_all(db.engine, tables=[one.__table__ for one in tables])  # type: ignore[misc]
        for one in tables:
            db.session.query(one).delete()
        db.session.commit()
        self.admin = Person(id="1", username="admin", role="admin")

    def find(self) -> reconcile.Drift:
        found = reconcile.find(self.wire, self.name, pause_s=0)
        assert found is not None
        return found

    def repair(self, drift: reconcile.Drift) -> None:
        transaction(reconcile.repair, self.wire, drift, by=self.admin)

    @property
    def spent(self) -> str | None:
        return self.wire.hget(self.key, "spent")

    @property
    def audited(self) -> int:
        return db.session.query(AuditEntry).count()


def test_a_repair_moves_the_counter_and_leaves_the_books(ledger: Flask, wire: redis.Redis) -> None:
    world = Drifting(wire)
    drift = world.find()
    assert (drift.name, drift.nano) == ("key:team:7:total", 7)
    world.repair(drift)
    assert (world.spent, world.audited, count_entries()) == ("100", 1, 1)
    assert budgets.spent("key", "team:7", "total") == 100
    assert reconcile.find(wire, world.name, pause_s=0) is None
    with pytest.raises(reconcile.Moved):
        world.repair(drift)  # the same one again changes nothing
    assert (world.spent, world.audited) == ("100", 1)


def test_a_repair_is_an_entry_of_its_own_that_costs_nothing(ledger: Flask, wire: redis.Redis) -> None:
    world = Drifting(wire)
    world.repair(world.find())
    ((_, fields),) = wire.xrange(store.USAGE)
    told = msgspec.json.decode(fields["e"], type=UsageEvent)
    assert reconcile.compare(wire, pause_s=0).drift == []  # it waits in the stream and is no difference
    assert (posting.post([told]), posting.post([told])) == (1, 0)
    (entry,) = reconcile.repairs()
    assert (entry.kind, entry.cost_nano, entry.moved_nano) == ("repair", 0, -7)
    assert entry.scopes == [["key", "team:7", "total"]]
    assert budgets.spent("key", "team:7", "total") == 100
    assert rollups.check() == []
    assert usage_reports.totals(world.admin).requests == 1  # it is no request
    assert reconcile.compare(wire, pause_s=0).drift == []


def test_a_counter_that_was_charged_meanwhile_is_left_and_looked_at_again(ledger: Flask, wire: redis.Redis) -> None:
    world = Drifting(wire)
    drift = world.find()
    later = now_event(cost_nano=11, scopes=(("key", "team:7", "total"),))
    charge(wire, later)
    wire.xadd(store.USAGE, {"e": encode(later)})
    with pytest.raises(reconcile.Moved):
        world.repair(drift)
    assert (world.spent, world.audited) == ("118", 0)
    same = reconcile.again(wire, drift)
    assert same is not None
    world.repair(same)
    assert world.spent == "111"
    assert reconcile.again(wire, drift) is None


def test_a_counter_that_redis_lost_comes_back_with_an_end(ledger: Flask, wire: redis.Redis) -> None:
    world = Drifting(wire, f"month-{clock.now_s() - 3600}")
    wire.delete(world.key)
    world.repair(world.find())
    assert world.spent == "100"
    assert wire.pttl(world.key) > 0


def test_nothing_is_repaired_while_the_meter_is_closed(ledger: Flask, wire: redis.Redis) -> None:
    world = Drifting(wire)
    for lost in ({"epoch": "1", "run_id": "another"}, None):
        wire.delete(store.METER)
        if lost:
            wire.hset(store.METER, mapping=lost)
        with pytest.raises(reconcile.Conflict):
            world.repair(world.find())
    assert (world.spent, world.audited) == ("107", 0)


def test_dead_letters_that_wait_may_be_the_difference(ledger: Flask, wire: redis.Redis) -> None:
    world = Drifting(wire)
    posting.bury("stream 1-0", b"nonsense", "not JSON")
    with pytest.raises(reconcile.IncompleteLedger, match="1 dead letter is open"):
        world.repair(world.find())
    assert (world.spent, world.audited) == ("107", 0)
    letter = db.session.scalars(dead_letters.search()).one()
    transaction(dead_letters.dismiss, letter, by=world.admin, reason="Nobody's.")
    world.repair(world.find())
    assert world.spent == "100"
