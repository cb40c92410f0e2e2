"""The admins' list of all budgets: named, narrowed and put in order by the database."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

import pytest
from flask import Flask
from sqlalchemy import select

from app.domain import budgets
from app.domain.budgets import Budget
from app.domain.payers import Scope
from app.extensions import db, transaction
from app.pages import budget_list
from tests.domain.test_payers import scopes  # noqa: F401
from tests.house import People

NANO = 10**9


def test_lists_of_budgets_call_them_the_same(app: Flask, people: People, scopes: dict[Scope, str]) -> None:
    for kind, id in scopes:
        transaction(budgets.set_budget, kind, id, by=people.admin, limit="1")
    with app.test_request_context():
        rows = db.session.execute(select(Budget.scope_kind, Budget.scope_id, budget_list.NAME)).all()
    assert {(kind, id): name for kind, id, name in rows} == scopes


def rows(app: Flask, **filters: str) -> list[str]:
    """The ids of the scopes of a list, in its order."""
    with app.test_request_context():
        return [one.scope_id for one in db.session.scalars(budget_list.search(**filters))]


def keep(scope_id: str, spent_nano: int, *, period: str | None = None) -> None:
    """What posting keeps beside a budget."""

    def work() -> None:
        found = db.session.scalars(select(Budget).where(Budget.scope_id == scope_id)).one()
        found.spent_nano, found.spent_period = spent_nano, period or found.spent_period

    transaction(work)


@pytest.fixture
def spending(people: People) -> dict[str, str]:
    """Budgets of 10 by what was spent of them, in the order of the list."""
    ids = {"most": people.owner.id, "some": people.stranger.id, "former": people.admin.id, "none": people.auditor.id}
    for id in ids.values():
        transaction(budgets.set_budget, "user", id, by=None, limit="10", period="month")  # type: ignore[arg-type]
    keep(ids["most"], 9 * NANO)
    keep(ids["some"], 4 * NANO)
    keep(ids["former"], 10 * NANO, period="month-1")  # that period is over
    return ids


def test_the_nearest_to_its_limit_comes_first_by_the_running_period(app: Flask, spending: dict[str, str]) -> None:
    assert rows(app)[:2] == [spending["most"], spending["some"]]
    assert set(rows(app)[2:]) == {spending["former"], spending["none"]}
    assert rows(app, state="near") == [spending["most"]]
    assert rows(app, state="exhausted") == []


def test_a_budget_is_near_from_four_fifths_and_used_up_when_no_call_fits(app: Flask, spending: dict[str, str]) -> None:
    keep(spending["some"], 8 * NANO)
    keep(spending["none"], 8 * NANO - 1)
    assert rows(app, state="near") == [spending["most"], spending["some"]]
    keep(spending["none"], 10 * NANO)
    keep(spending["some"], 12 * NANO)
    assert rows(app, state="exhausted") == [spending["some"], spending["none"]]


def test_what_refuses_earlier_is_measured_by_that(app: Flask, people: People, spending: dict[str, str]) -> None:
    transaction(
        budgets.set_budget, "user", spending["some"], by=people.admin, limit="10", action="refuse", action_percent=40
    )
    assert rows(app, state="exhausted") == [spending["some"]]
    assert rows(app)[0] == spending["some"]


def test_a_budget_of_nothing_stands_before_all_others(app: Flask, people: People, spending: dict[str, str]) -> None:
    transaction(budgets.set_budget, "user", spending["none"], by=people.admin, limit="0")
    assert rows(app)[0] == spending["none"]


@pytest.mark.parametrize(
    ("search", "kinds"),
    [
        ("nightly", {"key"}),
        ("key nightly", {"key"}),
        ("RESEARCH", {"team", "member", "subscription of team"}),
        ("team research", {"team", "member", "subscription of team"}),
        ("owner", {"user", "member", "subscription"}),
        ("small", {"subscription", "subscription of team"}),
        ("organisation", {"organisation"}),
        ("%", set()),
    ],
)
def test_a_budget_is_found_by_any_part_of_its_name(
    app: Flask, people: People, scopes: dict[Scope, str], search: str, kinds: set[str]
) -> None:
    for kind, id in scopes:
        transaction(budgets.set_budget, kind, id, by=people.admin, limit="1")
    called = {id: kind + (" of team" if "of team" in name else "") for (kind, id), name in scopes.items()}
    assert {called[id] for id in rows(app, text=search)} == kinds
    assert rows(app, text=search, kind="budget of another kind") == []


def test_a_scope_that_is_gone_is_left_out_of_the_rows(app: Flask, spending: dict[str, str]) -> None:
    transaction(budgets.set_budget, "key", "gone", by=None, limit="1")
    with app.test_request_context():
        found = list(db.session.scalars(budget_list.search()))
        shown = budget_list.rows(found)
        assert {row.payer.id for row in shown} == set(spending.values()) < {one.scope_id for one in found}
        assert [row.payer.id for row in budget_list.every_row(iter(found))] == [row.payer.id for row in shown]


def test_a_forecast_above_the_limit_is_found_and_the_highest_comes_first(
    app: Flask, people: People, set_clock: Callable[[datetime], None]
) -> None:
    def listed(**filters: str) -> list[str]:
        with app.test_request_context():
            query = budget_list.search(**filters).order_by(None).order_by(budget_list.columns()["forecast"].desc())
            return [one.scope_id for one in db.session.scalars(query)]

    set_clock(datetime(2026, 11, 11, tzinfo=UTC))  # a third of the month is over
    for person, spent in ((people.owner, 4), (people.stranger, 3)):
        transaction(budgets.set_budget, "user", person.id, by=None, limit="10", period="month")
        keep(person.id, spent * NANO)
    transaction(budgets.set_budget, "user", people.admin.id, by=None, limit="10", period="total")
    assert listed() == [people.owner.id, people.stranger.id, people.admin.id]
    assert listed(state="forecast") == [people.owner.id]
    set_clock(datetime(2026, 11, 2, tzinfo=UTC))
    assert listed(state="forecast") == [], "too early in the month to tell"
