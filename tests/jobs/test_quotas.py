"""The job `quotas`: what is due is done and committed, and the status page learns which counters differ."""

from __future__ import annotations

from datetime import timedelta

import msgspec
import pytest
import redis
from flask import Flask
from sqlalchemy import func, select

from app import clock, store
from app.clock import now
from app.domain import budgets, identity, keys, notices, sessions, subscriptions, tokens
from app.domain.tokens import AccessToken
from app.extensions import db, transaction
from app.jobs import quotas
from app.ledger import posting
from app.workflows import alerts, publication, reconcile
from app.workflows.reconcile import Comparison, Drift
from tests.house import People, make_model, people  # noqa: F401
from tests.ledger.books import event

DAY = timedelta(days=1)


def committed() -> None:
    """Forget what was not."""
    db.session.rollback()


def test_what_is_due_is_done_for_good(people: People, wire: redis.Redis) -> None:  # noqa: F811
    owner = people.owner
    model = transaction(make_model, people.admin)
    ended, _ = transaction(subscriptions.request, owner, model, by=owner)
    key, _ = transaction(keys.create, owner, by=owner, name="aging")
    transaction(tokens.grant, owner)

    def time_passes() -> None:
        ended.expires_at = now() - DAY
        key.created_at, key.expires_at = now() - 30 * DAY, now() + 3 * DAY
        for token in db.session.scalars(select(AccessToken)):
            token.expires_at = now() - 2 * DAY

    transaction(time_passes)
    wire.hset(store.SEEN, owner.id, clock.now_s())
    quotas.run()
    committed()
    assert ended.recorded_status == "expired"
    assert [one.kind for one in db.session.scalars(notices.addressed_to(owner))][:1] == ["key.expires_soon"]
    assert db.session.scalar(select(func.count()).select_from(AccessToken)) == 0
    seen = identity.named("owner").last_seen_at
    assert seen is not None and now() - seen < DAY
    assert sessions.take_seen() == {}
    told = len(db.session.scalars(notices.addressed_to(owner)).all())
    quotas.run()
    committed()
    assert len(db.session.scalars(notices.addressed_to(owner)).all()) == told, "repeated runs do no harm"


def test_budgets_that_nobody_was_awake_to_look_at_raise_their_alerts(people: People) -> None:  # noqa: F811
    transaction(budgets.set_budget, "user", people.owner.id, by=people.admin, limit="1")
    found = budgets.find("user", people.owner.id)
    assert found is not None
    counter = ("user", people.owner.id, found.spent_period)
    posting.post([event(person_id=people.owner.id, at_ms=clock.now_ms(), cost_nano=10**9, scopes=(counter,))])
    quotas.run()
    committed()
    assert db.session.scalar(select(func.count()).select_from(alerts.BudgetAlert)) >= 1


def test_pending_changes_are_published(people: People, wire: redis.Redis, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    caught: list[int] = []
    right = publication.catch_up
    monkeypatch.setattr(publication, "catch_up", lambda: caught.append(1) or right())
    quotas.run()
    assert caught == [1]


def test_all_drifting_counters_are_counted_and_the_first_are_named(
    inside: Flask, wire: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    drift = [Drift("user", f"u{number}", "total", number, 1) for number in range(60)]
    monkeypatch.setattr(reconcile, "compare", lambda redis: Comparison(70, drift))
    quotas.run()
    told = wire.hgetall(store.QUOTAS_STATUS)
    assert (told["compared"], told["drifting"]) == ("70", "60")
    named = msgspec.json.decode(told["drift"])
    assert len(named) == quotas.SHOWN == 50
    assert named[3] == {
        "kind": "user", "id": "u3", "period": "total", "counted_nano": 3, "booked_nano": 1, "drift_nano": 2,
    }  # fmt: skip
