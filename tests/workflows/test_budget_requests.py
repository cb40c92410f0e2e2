"""Asking for more of a budget: who may ask, who sees and answers it, and what a grant does to limit and counter."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app import store
from app.domain import budgets, keys, payers, teams
from app.domain.errors import Conflict, Forbidden, Invalid, NotFound
from app.domain.notices import Notice
from app.domain.payers import Payer
from app.domain.person import Person
from app.domain.teams import Team
from app.extensions import db, transaction
from app.ledger import posting
from app.ledger.recount import server_run
from app.metering import money
from app.metering.periods import window_of
from app.metering.scopes import member_id
from app.workflows import budget_requests
from app.workflows.budget_requests import BudgetRequest
from tests.conftest import SetClock
from tests.examples import examples
from tests.house import People, make_person
from tests.ledger.books import event


@pytest.fixture
def own(people: People) -> Payer:
    """The owner's own budget of 10 a month."""
    return limited(people, "user", people.owner.id)


def limited(people: People, kind: Any, id: str, limit: str = "10") -> Payer:
    transaction(budgets.set_budget, kind, id, by=people.admin, limit=limit, period="month")
    return payers.read([(kind, id)])[kind, id]


def ask(payer: Payer, by: Person, **values: Any) -> BudgetRequest:
    return transaction(
        budget_requests.ask, payer, by=by, **{"amount": "2", "lasting": True, "reason": "A report.", **values}
    )


def decide(found: BudgetRequest, decision: str, by: Person, **values: Any) -> None:
    transaction(budget_requests.decide, found, decision, by=by, **values)


def titles(person: Person) -> list[str]:
    return [one.title for one in db.session.query(Notice).filter_by(person_id=person.id).order_by(Notice.id)]


def limit_of(payer: Payer) -> int:
    db.session.rollback()
    found = budgets.find(*payer.scope)
    assert found is not None
    return found.limit_nano


def test_a_lasting_grant_adds_to_the_limit_and_tells_who_asked(people: People, own: Payer) -> None:
    found = ask(own, people.owner)
    decide(found, "grant", people.admin)
    assert limit_of(own) == 12 * money.NANO
    assert (found.status, found.granted_nano, found.decided_by) == ("granted", 2 * money.NANO, "admin")
    assert len(titles(people.owner)) == 1


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=examples(20))
@given(st.integers(1, 10**15), st.integers(0, 10**15))
def test_any_grant_adds_exactly_its_amount(people: People, granted: int, limit: int) -> None:
    payer = limited(people, "user", people.owner.id, money.text(limit))
    decide(ask(payer, people.owner), "grant", people.admin, amount=money.text(granted))
    assert limit_of(payer) == limit + granted


def test_a_grant_for_once_moves_the_counter_and_leaves_the_limit(people: People, own: Payer, wire: redis.Redis) -> None:
    wire.hset(store.METER, mapping={"epoch": "1", "run_id": server_run(wire)})
    decide(ask(own, people.owner, lasting=False), "grant", people.admin, amount="3")
    assert limit_of(own) == 10 * money.NANO
    standing = budgets.standing(*own.scope)
    assert (standing.counted_nano, standing.spent_nano) == (-3 * money.NANO, 0)


def test_a_limit_that_cannot_be_counted_is_not_granted(people: People) -> None:
    payer = limited(people, "user", people.owner.id, money.text(money.MAX_NANO))
    found = ask(payer, people.owner)
    with pytest.raises(Invalid) as refused:
        decide(found, "grant", people.admin, amount="0.000000001")
    assert refused.value.field == "amount"
    db.session.refresh(found)
    assert (found.status, limit_of(payer)) == ("pending", money.MAX_NANO)


def test_a_denial_needs_a_reason_and_changes_nothing(people: People, own: Payer) -> None:
    found = ask(own, people.owner)
    for reason in (None, "  ", "x" * 1001):
        with pytest.raises(Invalid):
            decide(found, "deny", people.admin, reason=reason)
    decide(found, "deny", people.admin, reason="Not this month.")
    assert (found.status, found.granted_nano, limit_of(own)) == ("denied", None, 10 * money.NANO)
    assert "Not this month." in db.session.query(Notice).filter_by(person_id=people.owner.id).one().text


def test_a_request_is_answered_once(people: People, own: Payer) -> None:
    found = ask(own, people.owner)
    with pytest.raises(Invalid):
        decide(found, "postpone", people.admin)
    decide(found, "grant", people.admin)
    for again in ("grant", "deny"):
        with pytest.raises(Conflict):
            decide(found, again, people.admin, reason="r")
    with pytest.raises(Conflict):
        transaction(budget_requests.withdraw, found, by=people.owner)
    assert limit_of(own) == 12 * money.NANO


def test_only_who_asked_takes_it_back(people: People, own: Payer) -> None:
    found = ask(own, people.owner)
    for person in (people.stranger, people.admin):
        with pytest.raises(Forbidden):
            transaction(budget_requests.withdraw, found, by=person)
    transaction(budget_requests.withdraw, found, by=people.owner)
    assert (found.status, found.is_pending) == ("withdrawn", False)


def test_each_person_asks_once_at_a_time_and_bars_nobody_else(people: People) -> None:
    everybodys = limited(people, "organisation", "default")
    ask(everybodys, people.owner)
    with pytest.raises(Conflict):
        ask(everybodys, people.owner)
    other = ask(everybodys, people.stranger)
    assert budget_requests.pending(people.stranger, everybodys) is other
    transaction(budget_requests.withdraw, other, by=people.stranger)
    assert budget_requests.pending(people.stranger, everybodys) is None
    ask(everybodys, people.stranger)
    assert db.session.scalar(budget_requests.pending_count()) == 2


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"amount": "0"}, "amount"),
        ({"amount": "-1"}, "amount"),
        ({"amount": "much"}, "amount"),
        ({"reason": " "}, "reason"),
        ({"reason": "x" * 1001}, "reason"),
    ],
)
def test_what_makes_no_sense_is_not_asked(people: People, own: Payer, values: dict[str, Any], field: str) -> None:
    with pytest.raises(Invalid) as refused:
        ask(own, people.owner, **values)
    assert refused.value.field == field
    assert budget_requests.pending(people.owner, own) is None


def test_who_is_not_charged_does_not_ask_and_where_is_no_limit_nobody(people: People, own: Payer) -> None:
    with pytest.raises(Forbidden):
        ask(own, people.stranger)
    with pytest.raises(Conflict):
        ask(payers.named("user", "stranger"), people.stranger)
    found = ask(own, people.owner)
    transaction(budgets.clear, "user", people.owner.id, by=people.admin)
    with pytest.raises(Conflict):
        decide(found, "grant", people.admin)
    decide(found, "deny", people.admin, reason="There is no limit.")


@pytest.fixture
def team(people: People) -> Team:
    """The owner's team, in which the stranger is a member with a cap."""
    made = transaction(teams.create, by=people.owner, name="Research", rpm=None)
    transaction(teams.put_member, made, people.stranger, by=people.owner, role="member")
    return made


def test_a_teams_owner_answers_for_its_members_and_keys_alone(people: People, own: Payer, team: Team) -> None:
    cap = limited(people, "member", member_id(team.id, people.stranger.id))
    key, _ = transaction(keys.create, people.stranger, by=people.stranger, name="ours", team=team)
    key_budget = limited(people, "key", key.id)
    for payer in (cap, key_budget):
        found = ask(payer, people.stranger)
        assert [one.id for one in db.session.scalars(budget_requests.pending_of_team(team.id))] == [found.id]
        with pytest.raises(Forbidden):
            decide(found, "grant", people.stranger)
        assert budget_requests.get_visible(people.owner, found.id) is found
        decide(found, "grant", people.owner)
        assert limit_of(payer) == 12 * money.NANO
        assert list(db.session.scalars(budget_requests.pending_of_team(team.id))) == []
    whole = limited(people, "team", team.id)
    found = ask(whole, people.owner)
    with pytest.raises(Forbidden):
        decide(found, "grant", people.owner)


def test_a_request_is_seen_by_who_asked_and_who_decides(people: People, own: Payer, team: Team) -> None:
    mine = ask(own, people.owner)
    cap = limited(people, "member", member_id(team.id, people.stranger.id))
    theirs = ask(cap, people.stranger)

    def seen(person: Person) -> set[str]:
        return {one.id for one in db.session.scalars(budget_requests.visible_to(person))}

    assert seen(people.owner) == seen(people.admin) == seen(people.auditor) == {mine.id, theirs.id}
    assert seen(people.stranger) == {theirs.id}
    with pytest.raises(NotFound):
        budget_requests.get_visible(people.stranger, mine.id)


def test_who_can_decide_is_told_and_nobody_else(people: People, own: Payer, team: Team) -> None:
    second = transaction(make_person, "second", "admin")
    transaction(lambda: setattr(second, "disabled", True))
    ask(own, people.owner)
    assert [len(titles(one)) for one in (people.admin, second, people.auditor, people.owner)] == [1, 0, 0, 0]
    told = len(titles(people.owner))
    ask(limited(people, "member", member_id(team.id, people.stranger.id)), people.stranger)
    assert len(titles(people.owner)) == told + 1, "a team's owner decides"
    assert len(titles(people.admin)) == 1, "and admins have it in their list"


def test_an_admin_who_asks_tells_nobody_of_the_own_answer(people: People) -> None:
    payer = limited(people, "user", people.admin.id)
    found = ask(payer, people.admin)
    decide(found, "grant", people.admin)
    assert titles(people.admin) == []


def test_what_the_scope_cost_before_helps_to_decide(people: People, own: Payer, set_clock: SetClock) -> None:
    now = datetime(2026, 11, 11, tzinfo=UTC)  # a third of the month is over
    set_clock(now)
    for months, cost in ((0, 30), (1, 7), (3, 1)):
        moment = window_of("month|UTC", int(now.timestamp() * 1000)).start_ms
        for _ in range(months):
            moment = window_of("month|UTC", moment - 1).start_ms
        posting.post([event(person_id=people.owner.id, at_ms=moment, cost_nano=cost * money.NANO, scopes=())])
    db.session.rollback()
    found = budget_requests.period_costs(own)
    assert [one.start.month for one in found] == [11, 10, 9]
    assert [one.cost_nano // money.NANO for one in found] == [30, 7, 0]
    assert [one.forecast_nano and round(one.forecast_nano / money.NANO) for one in found] == [90, None, None]
    assert found[0].end == datetime(2026, 12, 1, tzinfo=UTC)


def test_a_budget_in_total_has_one_period_without_a_forecast(people: People) -> None:
    transaction(budgets.set_budget, "user", people.owner.id, by=people.admin, limit="1", period="total")
    (found,) = budget_requests.period_costs(payers.named("user", "owner"))
    assert (found.end, found.forecast_nano) == (None, None)
    transaction(budgets.clear, "user", people.owner.id, by=people.admin)
    assert budget_requests.period_costs(payers.named("user", "owner")) == []
