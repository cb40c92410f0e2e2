"""Credits: room given back moves the counter and the books as one, once, and leaves use and cost as they were."""

from __future__ import annotations

import random
from pathlib import Path

import msgspec
import pytest
import redis

from app import clock, store
from app.domain import budgets
from app.domain.audit import AuditEntry
from app.domain.errors import Conflict, Invalid
from app.extensions import db, transaction
from app.ledger import budgets as books
from app.ledger import posting, rollups
from app.ledger.recount import recount, server_run
from app.metering import money
from app.metering.usage import UsageEvent
from app.reports import requests
from app.reports import usage as usage_reports
from app.runtime.ids import new_id
from app.workflows import credits, publication, reconcile
from tests.house import (  # noqa: F401
    People,
    app,
    config,
    database_url,
    home,
    inside,
    migrated,
    people,
    quick_hashes,
    valkey_url,
    wire,
)
from tests.ledger.books import event


class World:
    """A person with a budget of 10 a month, the meter open."""

    def __init__(self, wire: redis.Redis, people: People) -> None:
        self.wire, self.admin, self.scope = wire, people.admin, ("user", people.owner.id)
        wire.hset(store.METER, mapping={"epoch": "1", "run_id": server_run(wire)})
        transaction(budgets.set_budget, "user", people.owner.id, by=people.admin, limit="10", period="month")
        publication.catch_up()
        self.counter = (*self.scope, self.window)

    @property
    def window(self) -> str:
        from app.metering import periods

        return periods.window_of("month|UTC", clock.now_ms()).name

    def charge(self, nano: int) -> None:
        told = event(at_ms=clock.now_ms(), cost_nano=nano, scopes=(self.counter,))
        self.wire.hincrby(store.spent(*self.counter), "spent", nano)
        self.wire.xadd(store.USAGE, {"e": msgspec.json.encode(told)})

    def give(self, amount: str, id: str | None = None, reason: str = "An outage.") -> credits.Credit:
        return transaction(
            credits.give, self.wire, id or new_id(), *self.scope, by=self.admin, amount=amount, reason=reason
        )

    def drain(self, *, again: bool = False) -> int:
        """Posts what is in the stream; what was posted may stay there, as if it were delivered again."""
        entries = self.wire.xrange(store.USAGE)
        new = posting.post([msgspec.json.decode(fields["e"], type=UsageEvent) for _, fields in entries])
        if entries and not again:
            self.wire.xdel(store.USAGE, *(id for id, _ in entries))
        return new

    @property
    def numbers(self) -> tuple[int, int]:
        """What the meter and the books say is spent."""
        db.session.rollback()
        return int(self.wire.hget(store.spent(*self.counter), "spent") or 0), books.spent(*self.counter)


@pytest.fixture
def world(wire: redis.Redis, people: People) -> World:  # noqa: F811
    return World(wire, people)


def test_a_credit_gives_room_back_and_changes_no_cost(world: World, people: People) -> None:  # noqa: F811
    world.charge(9 * money.NANO)
    world.drain()
    given = world.give("4.5")
    assert (given.amount_nano, given.by, given.reason) == (4_500_000_000, "admin", "An outage.")
    assert world.numbers == (4_500_000_000, 4_500_000_000)  # at once, before the stream is read
    assert budgets.standing(*world.scope).remaining_nano == 5_500_000_000
    assert (world.drain(again=True), world.drain()) == (0, 0)
    assert world.numbers == (4_500_000_000, 4_500_000_000)
    totals = usage_reports.totals(world.admin)
    assert (totals.requests, totals.cost_nano) == (1, 9 * money.NANO)
    assert rollups.check() == []
    assert reconcile.compare(world.wire, pause_s=0).drift == []
    assert requests.entries_of(world.admin, given.id) == []


def test_a_credit_may_give_more_than_was_spent(world: World) -> None:
    world.give("25")
    assert world.numbers == (-25 * money.NANO, -25 * money.NANO)
    standing = budgets.standing(*world.scope)
    assert (standing.spent_nano, standing.remaining_nano) == (
        0,
        35 * money.NANO,
    )  # nothing was spent, and none says less


def test_the_same_credit_given_again_happens_once(world: World) -> None:
    id = new_id()
    world.give("1", id)
    world.give("1", id)
    assert world.numbers == (-money.NANO, -money.NANO)
    assert world.wire.xlen(store.USAGE) == 1
    assert db.session.query(AuditEntry).filter_by(action="budget.credit").count() == 1


def test_a_credit_that_was_not_committed_is_audited_when_it_is_given_again(world: World) -> None:
    """The counter has moved and the stream has brought it to the books, but its audit entry was rolled back."""
    id = new_id()

    def give_and_fail() -> None:
        credits.give(world.wire, id, *world.scope, by=world.admin, amount="1", reason="An outage.")
        raise RuntimeError

    with pytest.raises(RuntimeError):
        transaction(give_and_fail)
    world.drain()
    assert db.session.query(AuditEntry).filter_by(action="budget.credit").count() == 0
    world.give("1", id)
    assert world.numbers == (-money.NANO, -money.NANO)
    assert db.session.query(AuditEntry).filter_by(action="budget.credit").count() == 1


def test_two_credits_of_one_amount_are_two(world: World) -> None:
    world.give("1")
    world.give("1")
    assert world.numbers == (-2 * money.NANO, -2 * money.NANO)
    assert db.session.query(AuditEntry).filter_by(action="budget.credit").count() == 2


def test_a_credit_is_audited_and_listed_with_its_reason(world: World) -> None:
    given = world.give("1.25", reason="A broken batch: see the log")
    (entry,) = db.session.query(AuditEntry).filter_by(action="budget.credit")
    assert entry.detail == {
        "after": {"amount": "1.25"},
        "reason": "A broken batch: see the log",
        "credit": given.id,
    }
    (kept,) = [credits.from_entry(entry) for entry in db.session.scalars(credits.all_())]
    assert (kept.scope_id, kept.by, kept.reason) == (world.scope[1], "admin", "A broken batch: see the log")


@pytest.mark.parametrize("amount", ["0", "-1", "words", "1e-12", "9000000"])
def test_an_amount_has_to_make_sense(world: World, amount: str) -> None:
    with pytest.raises(Invalid) as refused:
        world.give(amount)
    assert refused.value.field == "amount"
    assert world.numbers == (0, 0)


def test_a_credit_needs_a_reason_and_a_budget(world: World, people: People) -> None:  # noqa: F811
    with pytest.raises(Invalid):
        world.give("1", reason="  ")
    transaction(budgets.clear, *world.scope, by=people.admin)
    with pytest.raises(Conflict):
        world.give("1")
    assert world.wire.xlen(store.USAGE) == 0


def test_nothing_is_given_while_the_meter_is_closed(world: World) -> None:
    world.wire.delete(store.METER)
    with pytest.raises(Conflict, match="recounted"):
        world.give("1")
    assert world.numbers == (0, 0)
    assert db.session.query(AuditEntry).filter_by(action="budget.credit").count() == 0


def test_a_flush_after_a_credit_loses_nothing(world: World, tmp_path: Path) -> None:
    world.charge(9 * money.NANO)
    world.drain()
    world.give("4")
    world.wire.flushall()
    publication.publish_all()
    assert recount(world.wire, tmp_path, lambda: None, lambda events: None, lambda p: ())
    assert world.numbers == (5 * money.NANO, 5 * money.NANO)


def test_a_budget_taken_away_and_given_again_keeps_its_credit(world: World, people: People) -> None:  # noqa: F811
    posting.post(
        [
            event(
                at_ms=clock.now_ms(), person_id=world.scope[1], cost_nano=9 * money.NANO,
                scopes=(world.counter,), team_id=None,
            )
        ]
    )  # fmt: skip
    world.wire.hset(store.spent(*world.counter), "spent", 9 * money.NANO)
    world.give("4")
    transaction(budgets.clear, *world.scope, by=people.admin)
    transaction(budgets.set_budget, *world.scope, by=people.admin, limit="10", period="month")
    publication.catch_up()
    assert world.numbers == (5 * money.NANO, 5 * money.NANO)


@pytest.mark.parametrize("seed", range(4))
def test_any_life_of_charges_and_credits_ends_without_drift(world: World, seed: int) -> None:
    chance = random.Random(seed)
    expected, given = 0, 0
    for _ in range(40):
        match chance.randrange(4):
            case 0:
                nano = chance.randrange(1, 10**9)
                world.charge(nano)
                expected += nano
            case 1:
                amount = chance.randrange(1, 10**9)
                world.give(money.text(amount))
                expected, given = expected - amount, given + amount
            case 2:
                world.drain(again=chance.random() < 0.5)
            case _:
                db.session.rollback()
                assert reconcile.find(world.wire, ":".join(world.counter), pause_s=0) is None
    world.drain()
    assert world.numbers == (expected, expected)
    assert usage_reports.totals(world.admin).cost_nano == expected + given
    assert reconcile.compare(world.wire, pause_s=0).drift == []
