"""Budgets that begin in the middle of a period start from what the ledger knows of it."""

from __future__ import annotations

from datetime import timedelta
from zoneinfo import ZoneInfo

import pytest

from app import clock, store
from app.domain import budgets, publication
from app.extensions import transaction
from app.ids import new_id
from app.jobs.drainer import Drainer
from app.ledger import budgets as books
from app.ledger import posting
from app.metering.periods import window_of
from app.metering.usage import UsageEvent


@pytest.fixture
def used(people):
    """The owner used 70 nano-units this moment, before anybody set a budget, and 5 in a month gone by."""
    now_ms = clock.now_ms()
    posting.post([event(people.owner.id, now_ms, 70), event(people.owner.id, now_ms - 70 * 86_400_000, 5)])
    return people.owner


def event(person_id: str, at_ms: int, cost: int, period: str = "total") -> UsageEvent:
    return UsageEvent(
        request_id=new_id(), attempt=1, at_ms=at_ms, person_id=person_id, model="m", endpoint="/v1/chat/completions",
        api_type="chat", outcome="ok", status=200, cost_nano=cost, scopes=(("user", person_id, period),),
    )  # fmt: skip


def counted(wire, person, spec: str) -> int:
    window = window_of(spec, clock.now_ms())
    return int(wire.hget(store.spent("user", person.id, window.name), "spent") or 0)


def give(person, **fields):
    transaction(budgets.set_budget, "user", person.id, by=None, limit="1", **fields)


def test_a_new_budget_starts_from_what_its_period_has_been_spent(used, wire):
    give(used, period="month")
    assert counted(wire, used, "month|UTC") == 70
    assert books.spent("user", used.id, window_of("month|UTC", clock.now_ms()).name) == 70


def test_publishing_again_adds_nothing(used, wire):
    give(used, period="month")
    publication.publish({("scope", f"user:{used.id}")})
    publication.publish_all()
    assert counted(wire, used, "month|UTC") == 70


def test_a_changed_limit_leaves_the_counter_alone_and_a_changed_period_starts_its_own(used, wire):
    give(used, period="month")
    wire.hincrby(store.spent("user", used.id, window_of("month|UTC", clock.now_ms()).name), "spent", 7)
    transaction(budgets.set_budget, "user", used.id, by=None, limit="2", period="month")
    assert counted(wire, used, "month|UTC") == 77
    give(used, period="day", timezone="Asia/Tokyo")
    assert counted(wire, used, "day|Asia/Tokyo") == 70


def test_a_period_that_comes_back_knows_what_was_spent_meanwhile(used, wire):
    now_ms = clock.now_ms()
    give(used, period="month")
    give(used, period="day")
    posting.post([event(used.id, now_ms, 30, window_of("day|UTC", now_ms).name)])
    give(used, period="month")
    assert counted(wire, used, "month|UTC") == 100


def test_the_start_survives_a_loss_of_redis(used, wire, config):
    give(used, period="month")
    wire.flushall()
    publication.catch_up()
    Drainer(config.redis_url, config.spool_dir).recount()
    assert counted(wire, used, "month|UTC") == 70
    publication.publish_all()
    assert counted(wire, used, "month|UTC") == 70


@pytest.mark.parametrize("timezone", ["UTC", "America/New_York", "Europe/Berlin"])
def test_a_budget_begins_anew_at_midnight_of_its_zone(people, turn, set_clock, timezone):
    """The sums of a day with 23 or 25 hours, of a leap day and of a month's last seconds end when the day does there."""
    now_ms = clock.now_ms()
    posting.post([event(people.owner.id, now_ms, 70), event(people.owner.id, now_ms - 70 * 86_400_000, 5)])
    for period in ("day", "week", "month"):
        set_clock(turn)
        give(people.owner, period=period, timezone=timezone)
        before = budgets.standing("user", people.owner.id)
        ends = before.resets_at.astimezone(ZoneInfo(timezone))
        assert before.spent_nano == 70
        assert (ends.hour, ends.minute, ends.second) == (0, 0, 0)
        assert (ends - timedelta(seconds=1)).date() >= turn.astimezone(ends.tzinfo).date()
        set_clock(before.resets_at - timedelta(seconds=1))
        assert budgets.standing("user", people.owner.id).spent_nano == 70
        set_clock(before.resets_at)
        after = budgets.standing("user", people.owner.id)
        assert after.spent_nano == 0
        assert after.resets_at > before.resets_at
