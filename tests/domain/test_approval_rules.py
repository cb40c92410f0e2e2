"""Approval rules: which one approves, in which order they are asked, and what they refuse to say."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain import approval_rules, audit
from app.domain.approval_rules import ApprovalRule
from app.domain.catalog import Model
from app.domain.errors import Invalid, NotFound
from app.domain.person import Person
from app.domain.prices import Price
from app.extensions import db, transaction
from app.metering import money
from tests.house import People

MTOK = 10**9  # nano-units of 1


def create(people: People, name: str, **values: Any) -> ApprovalRule:
    return transaction(approval_rules.create, by=people.admin, name=name, **values)


def names() -> list[str]:
    db.session.rollback()
    return [rule.name for rule in db.session.scalars(approval_rules.in_order())]


def priced(input: int | None, output: int | None) -> Model:
    model = Model(id="m", name="m", display_name="m")
    model.prices = [
        Price(id="p", input_per_mtok=input, output_per_mtok=output, from_at=datetime(2020, 1, 1, tzinfo=UTC))
    ]
    return model


USER = Person(id="u", username="u", role="user", groups=["Research"], scopes=[])


@pytest.mark.parametrize(
    ("rule", "fits"),
    [
        ({}, True),
        ({"role": "user"}, True),
        ({"role": "admin"}, False),
        ({"group": "rESEARCH"}, True),
        ({"group": "Sales"}, False),
        ({"most_input_per_mtok": 2 * MTOK}, True),  # the bound itself fits
        ({"most_input_per_mtok": 2 * MTOK - 1}, False),
        ({"most_output_per_mtok": 8 * MTOK}, True),
        ({"most_output_per_mtok": 8 * MTOK - 1}, False),
        ({"role": "user", "group": "Research", "most_input_per_mtok": 2 * MTOK, "most_output_per_mtok": 1}, False),
    ],
)
def test_a_rule_fits_when_all_that_it_names_fits(rule: dict[str, Any], fits: bool) -> None:
    assert ApprovalRule(name="r", **rule).fits(USER, priced(2 * MTOK, 8 * MTOK)) is fits


def test_what_has_no_price_is_never_below_one() -> None:
    rule = ApprovalRule(name="r", most_input_per_mtok=10**15)
    assert not rule.fits(USER, Model(id="m", name="m", display_name="m"))
    assert not rule.fits(USER, priced(None, 1))
    assert rule.fits(USER, priced(0, None))


def test_the_first_active_rule_that_fits_approves(people: People) -> None:
    first, second = create(people, "first"), create(people, "second")
    assert approval_rules.fitting(people.owner, priced(1, 1)) is first
    transaction(approval_rules.switch, first, active=False, by=people.admin)
    assert approval_rules.fitting(people.owner, priced(1, 1)) is second
    transaction(approval_rules.switch, second, active=False, by=people.admin)
    assert approval_rules.fitting(people.owner, priced(1, 1)) is None


def test_rules_change_places_one_by_one_and_stay_at_the_ends(people: People) -> None:
    one, two, three = (create(people, name) for name in ("one", "two", "three"))
    transaction(approval_rules.move, three, "up", by=people.admin)
    assert names() == ["one", "three", "two"]
    transaction(approval_rules.move, one, "down", by=people.admin)
    assert names() == ["three", "one", "two"]
    transaction(approval_rules.move, three, "up", by=people.admin)
    transaction(approval_rules.move, two, "down", by=people.admin)
    assert names() == ["three", "one", "two"]
    transaction(approval_rules.delete, three, by=people.admin)
    create(people, "four")
    assert names() == ["one", "two", "four"]
    moved = [entry.detail for entry in db.session.scalars(audit.entries(action="approval_rule.move"))]
    assert moved == [{"before": {"place": 1}, "after": {"place": 2}}, {"before": {"place": 3}, "after": {"place": 2}}]


def test_switching_to_what_is_so_already_leaves_no_trace(people: People) -> None:
    rule = create(people, "one")
    transaction(approval_rules.switch, rule, active=True, by=people.admin)
    assert [entry.action for entry in db.session.scalars(audit.entries(about=rule.id))] == ["approval_rule.create"]


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"name": "  "}, "name"),
        ({"name": "x" * 101}, "name"),
        ({"role": "king"}, "role"),
        ({"group": "x" * 101}, "group"),
        ({"days": 0}, "days"),
        ({"days": approval_rules.MOST_DAYS + 1}, "days"),
        ({"most_input_per_mtok": "-1"}, "most_input_per_mtok"),
        ({"most_output_per_mtok": "x"}, "most_output_per_mtok"),
        ({"budget_limit": "0.0000000001"}, "budget_limit"),
        ({"budget_limit": "1", "budget_period": "year"}, "budget_period"),
    ],
)
def test_a_rule_that_makes_no_sense_is_refused_and_changes_nothing(
    people: People, values: dict[str, Any], field: str
) -> None:
    rule = create(people, "stays", days=3)
    whole = dict.fromkeys(("role", "group", "most_input_per_mtok", "most_output_per_mtok", "budget_limit", "days"))
    for refuse in (
        lambda: create(people, **{"name": "new", **values}),
        lambda: transaction(
            approval_rules.update, rule, by=people.admin, **{"name": "new", "budget_period": "month", **whole, **values}
        ),
    ):
        with pytest.raises(Invalid) as refused:
            refuse()
        assert refused.value.field == field
    assert names() == ["stays"]


def test_there_is_a_most_of_rules(people: People, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(approval_rules, "MOST_RULES", 2)
    create(people, "one")
    last = create(people, "two")
    with pytest.raises(Invalid, match="already 2 rules"):
        create(people, "three")
    transaction(approval_rules.delete, last, by=people.admin)
    create(people, "three")
    assert names() == ["one", "three"]
    with pytest.raises(NotFound):
        approval_rules.by_id(last.id)


@given(st.integers(0, money.MAX_NANO), st.sampled_from(["day", "week", "month", "total"]))
def test_a_rules_budget_is_the_amount_that_was_given(nano: int, period: str) -> None:
    rule = ApprovalRule(name="r", budget_limit_nano=nano, budget_period=period)
    assert rule.budget is not None
    assert (money.parse(rule.budget["limit"]), rule.budget["period"]) == (nano, period)


def test_a_budget_without_an_amount_is_none_and_an_approval_ends_only_where_days_are_given(people: People) -> None:
    rule = create(people, "r", budget_limit="", budget_period="week")
    assert (rule.budget, rule.budget_period) == (None, None)
    moment = datetime(2028, 2, 28, 12, tzinfo=UTC)
    assert rule.end(moment) is None
    assert ApprovalRule(name="r", days=2).end(moment) == moment + timedelta(days=2)
