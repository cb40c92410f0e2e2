"""Subscriptions: their states, and what they tell to /v1 through the noticeboard, to the person and to admins through their
notices."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import msgspec
import pytest
import redis
from sqlalchemy import select

from app import clock, current, directory, store
from app.clock import now
from app.domain import approval_rules, catalog, identity, keys, notices, subscriptions, teams
from app.domain.catalog import Model
from app.domain.errors import Conflict, Invalid
from app.domain.notices import Notice
from app.domain.person import Person
from app.domain.subscriptions import Subscription
from app.extensions import db, transaction
from app.runtime.sealing import digest
from app.workflows import catalog_changes
from tests.house import People, make_model


@pytest.fixture
def guarded(people: People) -> Model:
    return transaction(make_model, people.admin, "guarded", restricted=True)


@pytest.fixture
def asked(people: People, guarded: Model) -> str:
    return transaction(subscriptions.request, people.owner, guarded, by=people.owner, justification="Letters")[0].id


def fresh(id: str) -> Subscription:
    found = db.session.get(Subscription, id)
    assert found is not None
    return found


def decide(people: People, id: str, decision: str, **values: Any) -> None:
    transaction(lambda: subscriptions.decide(fresh(id), decision, by=people.admin, **values))


def let_end_in(id: str, span: timedelta) -> None:
    def work() -> None:
        fresh(id).expires_at = now() + span

    transaction(work)


def let_notices_be_older(by: timedelta) -> None:
    """As if the time since they were told had passed."""

    def work() -> None:
        for notice in db.session.scalars(select(Notice)):
            notice.at -= by

    transaction(work)


def told(person: Person) -> list[str]:
    db.session.rollback()
    return list(db.session.scalars(select(Notice.kind).where(Notice.person_id == person.id).order_by(Notice.id)))


def last_notice(person: Person) -> Notice:
    found = db.session.scalar(select(Notice).where(Notice.person_id == person.id).order_by(Notice.id.desc()).limit(1))
    assert found is not None
    return found


def models_of(wire: redis.Redis, text: str) -> dict[str, str]:
    """What a key may call, as the gateway reads it."""
    found = wire.get(store.caller(digest(current.secrets().key_pepper, text)))
    return msgspec.json.decode(str(found), type=directory.CallerRecord).models


def test_the_gateway_learns_of_every_step_at_once(people: People, asked: str, wire: redis.Redis) -> None:
    _, key = transaction(keys.create, people.owner, by=people.owner, name="app")
    assert models_of(wire, key) == {}
    steps: list[tuple[Callable[[], object], bool]] = [
        (lambda: subscriptions.decide(fresh(asked), "approve", by=people.admin), True),
        (lambda: subscriptions.decide(fresh(asked), "suspend", by=people.admin), False),
        (lambda: subscriptions.decide(fresh(asked), "resume", by=people.admin), True),
        (lambda: subscriptions.cancel(fresh(asked), by=people.owner), False),
    ]
    for step, usable in steps:
        transaction(step)
        assert models_of(wire, key) == ({"guarded": asked} if usable else {})


def test_what_a_rule_approves_and_what_expires_is_published_too(
    people: People, guarded: Model, wire: redis.Redis
) -> None:
    transaction(approval_rules.create, by=people.admin, name="everybody", days=1)
    _, key = transaction(keys.create, people.owner, by=people.owner, name="app")
    id = transaction(subscriptions.request, people.owner, guarded, by=people.owner)[0].id
    assert models_of(wire, key) == {"guarded": id}
    let_end_in(id, timedelta(seconds=-1))
    assert transaction(subscriptions.expire_due) == 1
    assert models_of(wire, key) == {}


def test_the_person_is_told_of_every_decision_and_why(people: People, asked: str) -> None:
    decide(people, asked, "approve", reason="Welcome", expires_at=now() + timedelta(days=3))
    notice = last_notice(people.owner)
    assert (notice.kind, notice.href) == ("subscription.approve", f"/subscriptions/{asked}")
    assert notice.title == "You have access to guarded now"
    assert notice.text.startswith("Welcome\nYour keys can call it until 20")
    decide(people, asked, "suspend", reason="Too many calls")
    decide(people, asked, "resume")
    transaction(lambda: subscriptions.ask_renewal(fresh(asked), by=people.owner, reason="Longer"))
    decide(people, asked, "deny", reason="No")
    transaction(lambda: subscriptions.ask_renewal(fresh(asked), by=people.owner, reason="Please"))
    decide(people, asked, "approve", expires_at=now() + timedelta(days=30))
    kinds = ("approve", "suspend", "resume", "deny_renewal", "renew")
    assert told(people.owner) == [f"subscription.{kind}" for kind in kinds]


def test_what_one_does_oneself_is_not_told(people: People, asked: str) -> None:
    transaction(lambda: subscriptions.cancel(fresh(asked), by=people.owner))
    assert told(people.owner) == []
    assert told(people.stranger) == []


def test_admins_who_can_act_are_told_of_requests_and_renewals(people: People, guarded: Model) -> None:
    away = transaction(
        identity.create, by=None, username="away", password=people.admin.password_hash, role="admin", disabled=True
    )
    id = transaction(subscriptions.request, people.owner, guarded, by=people.owner, justification="Letters")[0].id
    notice = last_notice(people.admin)
    assert (notice.kind, notice.href) == ("subscription.request", f"/admin/subscriptions/{id}/decision")
    assert (notice.title, notice.text) == ("owner requests access to guarded", "Letters")
    assert told(people.auditor) == told(away) == []
    # An admin who asks is not told by themself.
    transaction(subscriptions.request, people.admin, guarded, by=people.admin)
    assert told(people.admin) == ["subscription.request"]


def test_nobody_is_asked_about_an_open_model(people: People) -> None:
    model = transaction(make_model, people.admin, "small")
    transaction(subscriptions.request, people.owner, model, by=people.owner)
    assert told(people.admin) == told(people.owner) == []


def test_an_end_is_told_a_week_and_a_day_before_once_each(people: People, asked: str) -> None:
    decide(people, asked, "approve", expires_at=now() + timedelta(days=8))
    assert transaction(subscriptions.warn_of_ends) == 0
    let_end_in(asked, timedelta(days=6, hours=23))
    assert transaction(subscriptions.warn_of_ends) == 1
    assert transaction(subscriptions.warn_of_ends) == 0
    notice = last_notice(people.owner)
    assert (notice.kind, notice.href) == ("subscription.expires_in_7_days", f"/subscriptions/{asked}")
    assert "You can request a renewal on its page." in notice.text
    let_notices_be_older(timedelta(days=6))
    let_end_in(asked, timedelta(hours=23))
    transaction(lambda: subscriptions.ask_renewal(fresh(asked), by=people.owner, reason="Longer"))
    assert transaction(subscriptions.warn_of_ends) == 1
    assert transaction(subscriptions.warn_of_ends) == 0
    assert last_notice(people.owner).kind == "subscription.expires_in_1_day"
    assert "renewal request is pending" in last_notice(people.owner).text
    let_end_in(asked, timedelta(seconds=-1))
    assert transaction(subscriptions.warn_of_ends) == 0
    assert transaction(subscriptions.expire_due) == 1
    assert last_notice(people.owner).kind == "subscription.expire"
    assert fresh(asked).renewal_asked_at is None


def test_the_end_of_a_renewed_one_is_told_anew(people: People, asked: str) -> None:
    decide(people, asked, "approve", expires_at=now() + timedelta(days=5))
    assert transaction(subscriptions.warn_of_ends) == 1
    let_notices_be_older(timedelta(days=40))
    let_end_in(asked, timedelta(days=5))
    assert transaction(subscriptions.warn_of_ends) == 1


def test_only_active_access_is_warned_of_its_end(people: People, asked: str) -> None:
    decide(people, asked, "approve", expires_at=now() + timedelta(days=5))
    decide(people, asked, "suspend")
    assert transaction(subscriptions.warn_of_ends) == 0


def test_a_renewal_belongs_to_an_end_that_is_near(people: People, asked: str) -> None:
    def ask(reason: str = "Longer") -> None:
        transaction(lambda: subscriptions.ask_renewal(fresh(asked), by=people.owner, reason=reason))

    with pytest.raises(Conflict):
        ask()
    decide(people, asked, "approve", expires_at=now() + timedelta(days=15))
    with pytest.raises(Conflict):
        ask()
    let_end_in(asked, timedelta(days=13, hours=23))
    with pytest.raises(Invalid):
        ask("  ")
    ask()
    with pytest.raises(Conflict):
        ask("Twice")
    assert db.session.scalar(subscriptions.awaiting_decision_count()) == 1
    with pytest.raises(Invalid) as refused:
        decide(people, asked, "approve", expires_at=now() + timedelta(days=1))
    assert refused.value.field == "expires_at"
    decide(people, asked, "approve")
    found = fresh(asked)
    assert (found.status, found.expires_at, found.waits_for) == ("active", None, None)
    assert db.session.scalar(subscriptions.awaiting_decision_count()) == 0


def test_a_suspended_one_may_still_be_renewed_and_stays_suspended(people: People, asked: str) -> None:
    decide(people, asked, "approve", expires_at=now() + timedelta(days=5))
    transaction(lambda: subscriptions.ask_renewal(fresh(asked), by=people.owner, reason="Longer"))
    decide(people, asked, "suspend", reason="Wait")
    decide(people, asked, "approve", expires_at=now() + timedelta(days=50))
    assert fresh(asked).status == "suspended"


def test_a_restriction_puts_an_open_renewal_aside(people: People, asked: str, guarded: Model) -> None:
    decide(people, asked, "approve", expires_at=now() + timedelta(days=5))
    transaction(lambda: subscriptions.ask_renewal(fresh(asked), by=people.owner, reason="Longer"))
    transaction(lambda: subscriptions.pend_all_of(catalog.model("guarded"), by=people.admin))
    found = fresh(asked)
    assert (found.status, found.waits_for, found.renewal_asked_at) == ("pending", "request", None)
    assert now() - found.asked_at < timedelta(minutes=1)


def test_what_waits_longest_stands_first_whatever_it_is(people: People, asked: str, guarded: Model) -> None:
    renewed = transaction(subscriptions.request, people.stranger, guarded, by=people.stranger)[0].id
    decide(people, renewed, "approve", expires_at=now() + timedelta(days=5))
    transaction(lambda: subscriptions.ask_renewal(fresh(renewed), by=people.stranger, reason="Longer"))
    assert [one.id for one in db.session.scalars(subscriptions.awaiting_decision())] == [asked, renewed]

    def long_ago() -> None:
        fresh(renewed).renewal_asked_at = now() - timedelta(days=3)

    transaction(long_ago)
    assert [one.id for one in db.session.scalars(subscriptions.awaiting_decision())] == [renewed, asked]
    assert [one.id for one in db.session.scalars(subscriptions.approvals(wait="any"))] == [renewed, asked]


def test_a_request_again_needs_an_end_and_a_model(people: People, asked: str, guarded: Model) -> None:
    def again() -> tuple[Subscription, bool]:
        return transaction(lambda: subscriptions.request_again(fresh(asked), by=people.owner, justification="More"))

    with pytest.raises(Conflict):
        again()
    decide(people, asked, "deny", reason="No")
    made, new = again()
    assert (made.status, new) == ("pending", True)
    assert again() == (made, False)
    transaction(lambda: catalog_changes.delete(catalog.model("guarded"), by=people.admin))
    with pytest.raises(Conflict):
        again()


def test_telling_happens_in_the_transaction_of_the_decision(
    people: People, asked: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: Any, **__: Any) -> None:
        raise RuntimeError("no")

    with monkeypatch.context() as patch:
        patch.setattr(notices, "notify", fails)
        with pytest.raises(RuntimeError):
            decide(people, asked, "approve")
    assert fresh(asked).status == "pending"


def test_one_whose_end_has_come_is_over_for_every_reader_before_the_job_runs(
    people: People, asked: str, guarded: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    decide(people, asked, "approve", expires_at=now() + timedelta(days=1))
    later = clock.now_ns() + 86_400 * 10**9
    monkeypatch.setattr("app.clock.now_ns", lambda: later)
    found = fresh(asked)
    assert (found.status, found.is_live, found.waits_for, found.recorded_status) == ("expired", False, None, "active")
    assert subscriptions.live(people.owner, guarded) is None
    assert list(db.session.scalars(subscriptions.owned_by(people.owner, status="active"))) == []
    assert list(db.session.scalars(subscriptions.owned_by(people.owner, status="expired"))) == [found]
    assert list(db.session.scalars(select(Subscription).where(Subscription.status.in_(subscriptions.LIVE)))) == []
    assert list(db.session.scalars(select(Subscription.status))) == ["expired"]
    assert list(db.session.scalars(select(Subscription.id).where(Subscription.status != "expired"))) == []
    assert list(db.session.execute(subscriptions.usable([people.owner.id]))) == []
    assert subscriptions.active_count(guarded) == 0
    for decision in ("suspend", "approve"):
        with pytest.raises(Conflict, match="expired"):
            decide(people, asked, decision)


@pytest.mark.parametrize("recorded", ["pending", "suspended"])
def test_whatever_it_waited_for_ends_with_it(
    people: People, asked: str, recorded: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def work() -> None:
        fresh(asked).status = recorded
        fresh(asked).expires_at = now() + timedelta(days=1)

    transaction(work)
    assert fresh(asked).status == recorded
    later = clock.now_ns() + 86_400 * 10**9
    monkeypatch.setattr("app.clock.now_ns", lambda: later)
    assert fresh(asked).status == "expired"
    assert db.session.scalar(subscriptions.awaiting_decision_count()) == 0


def test_who_asks_again_after_an_end_that_no_job_has_recorded_gets_a_new_one(
    people: People, asked: str, guarded: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    decide(people, asked, "approve", expires_at=now() + timedelta(days=1))
    later = clock.now_ns() + 86_400 * 10**9
    monkeypatch.setattr("app.clock.now_ns", lambda: later)
    anew, is_new = transaction(subscriptions.request, people.owner, guarded, by=people.owner)
    assert is_new and anew.id != asked
    assert fresh(asked).recorded_status == "expired"
    assert transaction(subscriptions.expire_due) == 0


def test_the_noticeboard_tells_when_each_model_ends(people: People, asked: str, wire: redis.Redis) -> None:
    text = transaction(keys.create, people.owner, by=people.owner, name="app")[1]
    end = now().replace(microsecond=0) + timedelta(days=1)
    decide(people, asked, "approve", expires_at=end)
    found = wire.get(store.caller(digest(current.secrets().key_pepper, text)))
    record = msgspec.json.decode(str(found), type=directory.CallerRecord)
    assert record.ends_ms == {"guarded": int(end.timestamp() * 1000)}


def test_a_subscription_moves_only_as_its_states_allow(people: People) -> None:
    model = transaction(make_model, people.admin, restricted=True)
    found, new = transaction(subscriptions.request, people.owner, model, by=people.owner, justification="why")
    assert (found.status, new) == ("pending", True)
    for decision in ("suspend", "resume"):
        with pytest.raises(Conflict):
            transaction(subscriptions.decide, found, decision, by=people.admin)
    transaction(subscriptions.decide, found, "deny", by=people.admin, reason="not now")
    with pytest.raises(Conflict):
        transaction(subscriptions.cancel, found, by=people.owner)
    second, new = transaction(subscriptions.request, people.owner, model, by=people.owner)
    assert (second.status, new) == ("pending", True)
    budget = {"limit": "3", "period": "month"}
    transaction(
        subscriptions.decide, second, "approve", by=people.admin, expires_at=now() + timedelta(days=1), budget=budget
    )
    transaction(subscriptions.decide, second, "suspend", by=people.admin)
    transaction(subscriptions.decide, second, "resume", by=people.admin)
    transaction(subscriptions.cancel, second, by=people.owner)
    db.session.refresh(second)
    steps = ["pending", "active", "suspended", "active", "cancelled"]
    assert [step.status for step in second.timeline] == steps
    assert [found.id for found in db.session.scalars(subscriptions.owned_by(people.owner))] == [second.id, found.id]


def test_what_is_over_expires(people: People, monkeypatch: pytest.MonkeyPatch) -> None:
    model = transaction(make_model, people.admin)
    found, _ = transaction(subscriptions.request, people.owner, model, by=people.owner)
    found_id = found.id

    def end_it() -> None:
        subscriptions.get_visible(people.owner, found_id).expires_at = now() - timedelta(seconds=1)

    transaction(end_it)
    assert db.session.execute(subscriptions.usable([people.owner.id])).all() == []
    assert transaction(subscriptions.expire_due) == 1
    assert found.status == "expired"
    assert transaction(subscriptions.expire_due) == 0


def test_a_team_counts_the_models_that_it_may_call_now(people: People, guarded: Model) -> None:
    team = transaction(teams.create, by=people.owner, name="Research", rpm=None)
    ended, works = (transaction(make_model, people.admin, name) for name in ("ended", "works"))
    found, _ = transaction(subscriptions.request, people.owner, ended, by=people.owner, team=team)
    for model in (works, guarded):
        transaction(subscriptions.request, people.owner, model, by=people.owner, team=team)
    transaction(subscriptions.request, people.owner, works, by=people.owner)  # their own
    assert subscriptions.counts_of_teams([team.id, "none"]) == {team.id: 2}
    transaction(subscriptions.cancel, found, by=people.owner)
    assert subscriptions.counts_of_teams([team.id]) == {team.id: 1}


def test_a_team_s_access_that_has_ended_is_asked_for_anew_by_any_member(people: People, guarded: Model) -> None:
    """Before the job has come to it; the first was asked for by somebody else of the team."""
    team = transaction(teams.create, by=people.owner, name="Two")
    transaction(lambda: db.session.add(teams.Membership(team_id=team.id, person_id=people.stranger.id)))
    first, _ = transaction(subscriptions.request, people.owner, guarded, by=people.owner, justification="x", team=team)
    own, _ = transaction(subscriptions.request, people.stranger, guarded, by=people.stranger, justification="x")
    for id in (first.id, own.id):
        decide(people, id, "approve", expires_at=now() + timedelta(days=1))
        let_end_in(id, timedelta(seconds=-1))
    again, is_new = transaction(
        subscriptions.request, people.stranger, guarded, by=people.stranger, justification="y", team=team
    )
    assert is_new and again.id != first.id
    assert fresh(first.id).recorded_status == "expired"
    assert fresh(own.id).recorded_status == "active", "their own is not touched"
