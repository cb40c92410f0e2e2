"""Alerts: each threshold is told once a period, to those whom it concerns, and actions do what they say."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import redis
from flask import Flask
from sqlalchemy import select

from app import clock, store
from app.domain import budgets, keys, notices, teams
from app.domain.deliveries import Delivery
from app.domain.errors import Forbidden, Invalid
from app.domain.notices import Notice
from app.domain.person import Person
from app.extensions import db, transaction
from app.ledger import posting
from app.metering import money, periods
from app.runtime.ids import new_id
from app.web.formats import percent
from app.workflows import alerts
from tests.house import People
from tests.ledger.books import event


def give(kind: str, id: str, *, limit: str = "10", by: Person | None = None, **more: Any) -> budgets.Budget:
    return transaction(budgets.set_budget, kind, id, by=by, limit=limit, period="month", **more)


def spend(kind: str, id: str, amount: str) -> tuple[str, str, str]:
    """Charges a scope, as the drainer does, and names its counter."""
    window = periods.window_of("month|UTC", clock.now_ms())
    counter = kind, id, window.name
    cost = money.parse(amount)
    posting.post([event(request_id=new_id(), at_ms=clock.now_ms(), cost_nano=cost, scopes=(counter,))])
    return counter


def told(person: Person, kind: str = "budget.alert") -> list[str]:
    query = notices.addressed_to(person).where(Notice.kind == kind).order_by(None).order_by(Notice.id)
    return [notice.title for notice in db.session.scalars(query)]


def test_each_threshold_is_told_once_a_period(people: People) -> None:
    give("user", people.owner.id)
    counter = spend("user", people.owner.id, "4.99")
    assert alerts.raise_for([counter]) == 0
    spend("user", people.owner.id, "0.01")
    assert [alerts.raise_for([counter]) for _ in range(3)] == [1, 0, 0]
    assert told(people.owner) == ["Budget for owner: 50% spent"]
    spend("user", people.owner.id, "5")
    assert (alerts.raise_for([counter]), alerts.raise_due()) == (2, 0)
    assert told(people.owner) == [f"Budget for owner: {percent}% spent" for percent in (50, 100)], (
        "one jump, one notice"
    )
    assert (told(people.stranger), told(people.admin)) == ([], [])


def test_a_notice_says_how_much_of_what_and_when_it_resets(people: People) -> None:
    give("user", people.owner.id)
    alerts.raise_for([spend("user", people.owner.id, "8.5")])
    notice = db.session.scalars(notices.addressed_to(people.owner)).first()
    assert notice is not None
    assert notice.text.startswith("8.5 USD of 10 USD spent (85%). It resets at ")
    assert notice.href == "/budgets/user/owner"


def test_a_notice_has_the_per_cent_that_pages_show(people: People) -> None:
    give("user", people.owner.id, limit="0.01")
    alerts.raise_for([spend("user", people.owner.id, "0.02876")])
    notice = db.session.scalars(notices.addressed_to(people.owner)).one()
    assert notice.title == "Budget for owner: 100% spent"
    assert f"({percent(28_760_000, 10_000_000, 0)})" in notice.text and "(288%)" in notice.text


def test_thresholds_are_the_budgets_own(people: People) -> None:
    give("user", people.owner.id, thresholds=[25, 90])
    alerts.raise_for([spend("user", people.owner.id, "8.99")])
    assert told(people.owner) == ["Budget for owner: 25% spent"]
    give("user", people.owner.id, thresholds=[])
    spend("user", people.owner.id, "8.99")
    assert alerts.raise_due() == 0


@pytest.mark.parametrize("wanted", [[0], [101], list(range(1, 12))])
def test_thresholds_are_percents(people: People, wanted: list[int]) -> None:
    with pytest.raises(Invalid) as refused:
        give("user", people.owner.id, thresholds=wanted)
    assert refused.value.field == "thresholds"


def test_another_period_is_told_of_anew_and_a_past_one_no_more(people: People) -> None:
    give("user", people.owner.id)
    alerts.raise_for([spend("user", people.owner.id, "6")])
    row = db.session.scalars(alerts.of_scope("user", people.owner.id)).one()
    row.period = "month-1000000000"
    db.session.commit()
    assert alerts.raise_due() == 1
    assert alerts.raise_for([("user", people.owner.id, "month-1000000000")]) == 0


def test_a_lowered_limit_is_found_by_the_minute_job(people: People) -> None:
    give("user", people.owner.id, limit="100")
    spend("user", people.owner.id, "10")
    assert alerts.raise_due() == 0
    give("user", people.owner.id, limit="12")
    assert alerts.raise_due() == 2


def test_a_budget_of_nothing_is_no_news(people: People) -> None:
    give("user", people.owner.id, limit="0")
    assert alerts.raise_due() == 0


@pytest.mark.parametrize("kind", ["key", "member", "team", "organisation"])
def test_it_is_told_to_those_whom_it_concerns(people: People, kind: str) -> None:
    team = transaction(teams.create, by=people.stranger, name="Lab")
    transaction(teams.put_member, team, people.owner, by=people.admin)
    key, _ = transaction(keys.create, people.owner, by=people.owner, name="app", team=team)
    id = {"key": key.id, "member": f"{team.id}:{people.owner.id}", "team": team.id, "organisation": "default"}[kind]
    give(kind, id, thresholds=[50])
    alerts.raise_for([spend(kind, id, "5")])
    wanted = {"key": "os", "member": "os", "team": "s", "organisation": "a"}[kind]
    heard = "".join(p.username[0] for p in (people.owner, people.stranger, people.admin) if told(p))
    assert heard == wanted


def test_a_refusal_counts_as_used_up_when_hardly_anything_is_left(people: People) -> None:
    give("user", people.owner.id, thresholds=[100])
    scope = "user", people.owner.id
    for _ in range(6):
        counter = spend(*scope, "1.5")
    assert alerts.raise_for([counter], [scope]) == 1  # most is spent, and hardly another call fits
    assert told(people.owner) == ["Budget for owner: used up, new requests are refused"]


@pytest.mark.parametrize(("calls", "each"), [(0, "0"), (1, "2.94"), (1, "6"), (3, "1.5"), (20, "0.1"), (79, "0.1")])
def test_a_request_that_was_too_large_by_itself_is_no_alert(people: People, calls: int, each: str) -> None:
    key, _ = transaction(keys.create, people.owner, by=people.owner, name="app")
    give("key", key.id, by=people.admin, action="suspend", action_percent=100, thresholds=[90, 100])
    for _ in range(calls):
        spend("key", key.id, each)
    assert alerts.raise_for([], [("key", key.id), ("user", people.stranger.id)]) == 0
    assert key.paused_at is None


def test_what_redis_noted_as_used_up_is_taken_once(people: People, wire: redis.Redis) -> None:
    wire.sadd(store.EXHAUSTED, "member:team-1:person-1", "user:x")
    assert sorted(alerts.exhausted()) == [("member", "team-1:person-1"), ("user", "x")]
    assert alerts.exhausted() == []


def test_new_work_is_refused_from_a_percent_on(people: People, wire: redis.Redis) -> None:
    from app.workflows import publication

    give("user", people.owner.id, by=people.admin, limit="0.000000009", action="refuse", action_percent=50)
    publication.catch_up()
    assert wire.hget(store.scope("user", people.owner.id), "limit") == "4"  # rounded down
    standing = budgets.standing("user", people.owner.id)
    assert (standing.limit_nano, standing.whole_nano, standing.remaining_nano) == (4, 9, 4)
    give("user", people.owner.id, thresholds=[100], action="refuse", action_percent=60, by=people.admin)
    alerts.raise_for([spend("user", people.owner.id, "6")])
    assert told(people.owner) == ["Budget for owner: 60% spent, new requests are refused"]


def test_a_key_is_suspended_once_a_period_and_resumed_by_a_person(people: People) -> None:
    key, _ = transaction(keys.create, people.owner, by=people.owner, name="app")
    give("key", key.id, by=people.admin, thresholds=[], action="suspend", action_percent=90)
    alerts.raise_for([spend("key", key.id, "8.99")])
    assert key.status == "active"
    alerts.raise_for([spend("key", key.id, "0.01")])
    assert key.status == "paused"
    assert told(people.owner, "key.paused") == ["Your key app was paused"]
    transaction(keys.resume, key, by=people.owner)
    assert (alerts.raise_due(), key.status) == (0, "active")


def test_actions_are_for_admins_and_suspension_is_for_keys(people: People) -> None:
    key, _ = transaction(keys.create, people.owner, by=people.owner, name="app")
    with pytest.raises(Forbidden):
        give("key", key.id, by=people.owner, action="suspend")
    give("key", key.id, by=people.owner, thresholds=[10])
    with pytest.raises(Invalid):
        give("user", people.owner.id, by=people.admin, action="suspend")
    with pytest.raises(Invalid):
        give("key", key.id, by=people.admin, action="explode")
    with pytest.raises(Invalid):
        give("key", key.id, by=people.admin, action="refuse", action_percent=0)
    give("key", key.id, by=people.admin, action="refuse", action_percent=70)
    kept = give("key", key.id, by=people.owner, limit="20")
    assert (kept.thresholds, kept.action, kept.action_percent) == ([10], "refuse", 70)


def test_the_webhook_hears_of_an_alert_once(people: People, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[dict[str, Any]] = []
    monkeypatch.setattr("app.domain.deliveries.webhook", sent.append)
    team = transaction(teams.create, by=people.stranger, name="Lab")
    transaction(teams.put_member, team, people.owner, by=people.admin, role="owner")
    sent.clear()
    give("team", team.id, thresholds=[50])
    alerts.raise_for([spend("team", team.id, "7")])
    (event,) = sent
    assert (event["kind"], event["scope"], event["scope_id"]) == ("budget.alert", "team", team.id)
    assert (event["threshold"], event["percent"], event["spent"], event["limit"]) == (50, 70, "7", "10")
    assert sorted(event["people"]) == ["owner", "stranger"]
    assert db.session.scalar(select(Delivery)) is None


def test_whoever_looks_at_the_same_moment_tells_once_in_all(app: Flask, people: People) -> None:
    owner = people.owner.id
    give("user", owner)
    counter = spend("user", owner, "9")
    start = threading.Barrier(6)
    raised: list[int] = []

    def look() -> None:
        with app.app_context():
            start.wait()
            raised.append(alerts.raise_for([counter]))
            db.session.remove()

    threads = [threading.Thread(target=look) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    assert sum(raised) == 2
    db.session.rollback()
    assert told(people.owner) == ["Budget for owner: 80% spent"]
